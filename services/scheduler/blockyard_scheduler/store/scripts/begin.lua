-- uses: mark
-- Store what a run is; with ARGV[4] == '1' drop what there was of it.
-- KEYS: head, schema, spec, log, pages, errors, history, pages of the history, code.
-- ARGV: identity, schema, spec, fresh, promise to note for a new run.
local writer = redis.call('HGET', KEYS[1], 'writer') or ''
if writer ~= ARGV[1] then
  return {'refused', writer}
end
if ARGV[4] == '1' then
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9])
  redis.call('HDEL', KEYS[1], 'seq', 'by', 'kept', 'first', 'pages', 'counted')
end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('SET', KEYS[3], ARGV[3])
local head = redis.call('HMGET', KEYS[1], 'seq', 'server')
if not head[1] then
  redis.call('HSET', KEYS[1], 'first', '1', 'pages', '0', 'counted', '0')
end
if ARGV[4] == '1' or not (head[1] or head[2]) then
  mark(KEYS[1], ARGV[5])
end
return {'stored', ''}
