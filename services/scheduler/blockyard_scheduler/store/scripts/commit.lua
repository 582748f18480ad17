-- Write one record and what goes with it, if we lead and it follows the last one.
-- KEYS: head, log, errors, pages.
-- ARGV: identity, seq, record, drop below, number of errors, their fields and values, page keys and values.
-- Gives {'stored' | 'already' | 'refused' | 'out of order', writer, last seq}.
local head = redis.call('HMGET', KEYS[1], 'writer', 'seq', 'by', 'pages', 'counted')
local writer, last, by = head[1] or '', tonumber(head[2] or '0'), head[3] or ''
if writer ~= ARGV[1] then
  return {'refused', writer, last}
end
local seq = tonumber(ARGV[2])
if seq == last and by == writer then
  return {'already', writer, last}
end
if seq ~= last + 1 then
  return {'out of order', writer, last}
end
redis.call('XADD', KEYS[2], ARGV[2] .. '-0', 'r', ARGV[3])
redis.call('HSET', KEYS[1], 'seq', ARGV[2], 'by', writer)
local n_errors = tonumber(ARGV[5])
for i = 6, 5 + 2 * n_errors, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
end
local new = 0
for i = 6 + 2 * n_errors, #ARGV, 2 do
  new = new + redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
end
if head[5] == (head[2] or '0') then  -- by counting, not by looking: what is there may be less than what should be
  redis.call('HSET', KEYS[1], 'counted', ARGV[2], 'pages', string.format('%d', tonumber(head[4]) + new))
else  -- an older version wrote last
  redis.call('HSET', KEYS[1], 'counted', ARGV[2], 'pages', redis.call('HLEN', KEYS[4]),
    'first', string.format('%d', seq - redis.call('XLEN', KEYS[2]) + 1))
end
if tonumber(ARGV[4]) > 0 then
  redis.call('XTRIM', KEYS[2], 'MINID', ARGV[4] .. '-0')
  redis.call('HSET', KEYS[1], 'first', ARGV[4])
end
return {'stored', writer, seq}
