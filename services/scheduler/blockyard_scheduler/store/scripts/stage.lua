-- uses: known
-- Lay pages aside for SWITCH, if nobody else leads; with ARGV[4] == '1' they are the first ones.
-- KEYS: lock, head, staged. ARGV: identity, lock ms, those who led before, first, page keys and values.
-- Gives {'stored' | 'refused', leader}.
local writer = redis.call('HGET', KEYS[2], 'writer') or ''
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return {'refused', held}
end
local last = tonumber(redis.call('HGET', KEYS[2], 'seq') or '0')
if writer ~= ARGV[1] and not went_back(writer, last, ARGV[3]) then
  return {'refused', writer}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[4] == '1' then
  redis.call('DEL', KEYS[3])
end
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
end
return {'stored', ''}
