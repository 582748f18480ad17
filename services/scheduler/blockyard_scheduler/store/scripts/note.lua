-- Keep a note about a pool, if we lead. KEYS: head, scaling. ARGV: identity, pool, note.
-- Gives {'stored' | 'refused', leader}.
local writer = redis.call('HGET', KEYS[1], 'writer') or ''
if writer ~= ARGV[1] then
  return {'refused', writer}
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return {'stored', ''}
