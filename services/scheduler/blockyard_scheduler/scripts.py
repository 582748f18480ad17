"""The Lua scripts: each is one atomic step in Redis, and each may be sent again when its answer was lost."""

from __future__ import annotations

TAKE = """
-- Become the leader if nobody is. KEYS: lock, epoch, head. ARGV: nonce, lock ms, address.
-- Gives {1, epoch} for the leader, {0, address of the leader} for all others.
local held = redis.call('GET', KEYS[1])
local counter
if held then
  counter = string.match(held, '^(%d+):' .. ARGV[1] .. '$')
  if not counter then
    return {0, redis.call('HGET', KEYS[3], 'address') or ''}
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  counter = tostring(redis.call('INCR', KEYS[2]))
  redis.call('SET', KEYS[1], counter .. ':' .. ARGV[1], 'PX', ARGV[2])
end
redis.call('HSET', KEYS[3], 'writer', counter .. ':' .. ARGV[1], 'address', ARGV[3])
return {1, counter}
"""

RENEW = """
-- Keep the lock; take it again where it expired and nobody else led since. KEYS: lock, head. ARGV: identity, lock ms.
-- Gives 1, or the identity of the leader that is.
local writer = redis.call('HGET', KEYS[2], 'writer')
local held = redis.call('GET', KEYS[1])
if writer == ARGV[1] and (not held or held == ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
return held or writer or ''
"""

RESIGN = """
-- Free the lock, if it is ours. KEYS: lock. ARGV: identity.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""

BEGIN = """
-- Store what a run is; with ARGV[4] == '1' drop what there was of it.
-- KEYS: head, schema, spec, log, pages, errors. ARGV: identity, schema, spec, fresh.
local writer = redis.call('HGET', KEYS[1], 'writer') or ''
if writer ~= ARGV[1] then
  return {'refused', writer}
end
if ARGV[4] == '1' then
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
  redis.call('HDEL', KEYS[1], 'seq', 'by')
end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('SET', KEYS[3], ARGV[3])
return {'stored', ''}
"""

COMMIT = """
-- Write one record and what goes with it, if we lead and it follows the last one.
-- KEYS: head, log, errors, pages.
-- ARGV: identity, seq, record, drop below, number of errors, their fields and values, page keys and values.
-- Gives {'stored' | 'already' | 'refused' | 'out of order', writer, last seq}.
local head = redis.call('HMGET', KEYS[1], 'writer', 'seq', 'by')
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
local n_errors = tonumber(ARGV[5])
for i = 6, 5 + 2 * n_errors, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
end
for i = 6 + 2 * n_errors, #ARGV, 2 do
  redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
end
if tonumber(ARGV[4]) > 0 then
  redis.call('XTRIM', KEYS[2], 'MINID', ARGV[4] .. '-0')
end
redis.call('HSET', KEYS[1], 'seq', ARGV[2], 'by', writer)
return {'stored', writer, seq}
"""
