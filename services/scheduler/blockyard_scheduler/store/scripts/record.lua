-- Keep a piece of the record of the run, once, if we lead. KEYS: head, history, pages of the history.
-- ARGV: identity, number of the piece, time, batches ('' for none), drop below, page keys and values.
-- Gives {'stored' | 'already' | 'refused', writer, last piece before}.
local head = redis.call('HMGET', KEYS[1], 'writer', 'kept')
local writer, last = head[1] or '', tonumber(head[2] or '0')
if writer ~= ARGV[1] then
  return {'refused', writer, last}
end
if tonumber(ARGV[2]) <= last then
  return {'already', writer, last}
end
if ARGV[4] ~= '' then
  redis.call('XADD', KEYS[2], ARGV[2] .. '-0', 't', ARGV[3], 'b', ARGV[4])
end
for i = 6, #ARGV, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
end
if tonumber(ARGV[5]) > 0 then
  redis.call('XTRIM', KEYS[2], 'MINID', ARGV[5] .. '-0')
end
redis.call('HSET', KEYS[1], 'kept', ARGV[2])
return {'stored', writer, last}
