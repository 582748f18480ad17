-- uses: known mark whole
-- Make the pages laid aside the whole state of the run, if nobody else leads and all of them are there.
-- KEYS: lock, epoch, head, schema, spec, log, pages, errors, staged.
-- ARGV: identity, lock ms, those who led before, address, schema, spec, seq, number of pages, promise to note, error
-- fields and values.
-- Gives {'stored' | 'already' | 'refused' | 'incomplete', leader}.
local head = redis.call('HMGET', KEYS[3], 'writer', 'seq', 'by', 'first')
local writer, last, by = head[1] or '', head[2] or '0', head[3] or ''
local first = string.format('%d', tonumber(ARGV[7]) + 1)
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return {'refused', held}
end
if writer ~= ARGV[1] and not went_back(writer, tonumber(last), ARGV[3]) then
  return {'refused', writer}
end
if writer == ARGV[1] and by == ARGV[1] and last == ARGV[7] and head[4] == first
  and whole(KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]) then
  return {'already', writer}
end
if redis.call('HLEN', KEYS[9]) ~= tonumber(ARGV[8]) then
  return {'incomplete', writer}
end
redis.call('DEL', KEYS[6], KEYS[7])
redis.call('RENAME', KEYS[9], KEYS[7])
redis.call('SET', KEYS[4], ARGV[5])
redis.call('SET', KEYS[5], ARGV[6])
local epoch = string.match(ARGV[1], '^%d+')
if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(epoch) then
  redis.call('SET', KEYS[2], epoch)
end
for i = 10, #ARGV, 2 do
  redis.call('HSET', KEYS[8], ARGV[i], ARGV[i + 1])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local before = string.match(ARGV[3], '^%d+ (.*)$')
redis.call('HSET', KEYS[3], 'writer', ARGV[1], 'address', ARGV[4], 'before', before, 'seq', ARGV[7], 'by', ARGV[1],
  'first', first, 'pages', ARGV[8], 'counted', ARGV[7])
mark(KEYS[3], ARGV[9])
return {'stored', ARGV[1]}
