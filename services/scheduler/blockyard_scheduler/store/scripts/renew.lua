-- uses: known mark whole
-- Keep the lock; take it again where it expired and nobody else led since: 'lapsed' where somebody may have led of whom
-- Redis, started again meanwhile, has nothing left.
-- KEYS: lock, head, schema, spec, log, pages.
-- ARGV: identity, lock ms, those who led before, last record confirmed, promise to note.
-- Gives {'kept' | 'lapsed' | 'refused' | 'forgot' | 'holed', leader, last seq}; where it forgot us nothing is changed.
local writer = redis.call('HGET', KEYS[2], 'writer') or ''
local held = redis.call('GET', KEYS[1])
local last = tonumber(redis.call('HGET', KEYS[2], 'seq') or '0')
if held and held ~= ARGV[1] then
  return {'refused', held, last}
end
if writer == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  if not whole(KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]) then
    return {'holed', writer, last}
  end
  local marked = redis.call('HGET', KEYS[2], 'server') or ''
  if not held and id and string.match(marked, ' (%w+)$') == 'forgets' and string.sub(marked, 1, #id) ~= id then
    return {'lapsed', writer, last}
  end
  if last >= tonumber(ARGV[4]) then
    mark(KEYS[2], ARGV[5])
  end
  return {'kept', writer, last}
end
if went_back(writer, last, ARGV[3]) then
  return {'forgot', writer, last}
end
return {'refused', writer, last}
