local id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
-- Note which start of Redis holds all that its leader knows, and what it promises ('' as promise: note nothing).
local function mark(head, promise)
  if promise ~= '' and id and redis.call('HGET', head, 'server') ~= id .. ' ' .. promise then
    redis.call('HSET', head, 'server', id .. ' ' .. promise)
  end
end
