-- Give the commands that we may not call on a key of the run, as far as Redis tells (7.0 or newer). KEYS: one of them.
local needed = {'GET', 'SET', 'DEL', 'EXISTS', 'PEXPIRE', 'PTTL', 'RENAME', 'MGET', 'HGET', 'HSET', 'HMGET', 'HGETALL',
  'HDEL', 'HLEN', 'HSCAN', 'XADD', 'XTRIM', 'XRANGE', 'XLEN'}
local missing = {}
for _, command in ipairs(needed) do
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, KEYS[1], KEYS[1]) then
    table.insert(missing, command)
  end
end
return missing
