-- Become the leader if nobody is. KEYS: lock, epoch, head. ARGV: nonce, lock ms, address, highest epoch seen, process.
-- Gives {1, epoch, those who led before} for the leader, {0, address of the leader, epoch, ms until the lock expires,
-- its identity, its process} for all others, and {-1, '', 0} where Redis counted further once: it forgot, and its
-- leader may be about to write all of it again.
local held = redis.call('GET', KEYS[1])
local counter
local before = redis.call('HGET', KEYS[3], 'before') or ''
if held then
  counter = string.match(held, '^(%d+):' .. ARGV[1] .. '$')
  if not counter then
    local process = redis.call('HGET', KEYS[3], 'process') or ''
    if string.sub(process, 1, #held + 1) ~= held .. ' ' then
      process = ''  -- of a leader before this one: Redis forgot, and was written again
    end
    return {0, redis.call('HGET', KEYS[3], 'address') or '', tonumber(redis.call('GET', KEYS[2]) or '0'),
      redis.call('PTTL', KEYS[1]), held, string.sub(process, #held + 2)}
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(ARGV[4]) then
    return {-1, '', 0}
  end
  local writer = redis.call('HGET', KEYS[3], 'writer')
  local count = tonumber(redis.call('GET', KEYS[2]) or '0')
  if writer then
    before = string.sub(writer .. ' ' .. before, 1, 600)
    count = math.max(count, tonumber(string.match(writer, '^%d+')))  -- where the counter alone was lost
  end
  counter = string.format('%d', count + 1)
  redis.call('SET', KEYS[2], counter)
  redis.call('SET', KEYS[1], counter .. ':' .. ARGV[1], 'PX', ARGV[2])
end
redis.call('HSET', KEYS[3], 'writer', counter .. ':' .. ARGV[1], 'address', ARGV[3], 'before', before,
  'process', counter .. ':' .. ARGV[1] .. ' ' .. ARGV[5])
return {1, counter, before}
