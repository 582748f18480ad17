-- Whether Redis has gone back to a state from before us: its writer led before us (or there is none), and has not gone
-- on since, as an earlier leader that slept may do once Redis has forgotten us. `known`: the last record of those
-- before us, and their identities.
local function went_back(writer, last, known)
  local before = string.find(' ' .. known .. ' ', ' ' .. writer .. ' ', 1, true) ~= nil
  return (writer == '' or before) and last <= tonumber(string.match(known, '^%d+'))
end
