-- Whether all is there that the head of the journal says there is: somebody may have deleted a key, or Redis, told to,
-- have evicted it. An older version of blockyard does not say, and where one wrote last what is said is old.
local function whole(head, schema, spec, log, pages)
  local kept = redis.call('HMGET', head, 'seq', 'first', 'pages', 'counted')
  return kept[4] ~= (kept[1] or '0') or (redis.call('EXISTS', schema, spec) == 2
    and redis.call('XLEN', log) == tonumber(kept[1] or '0') - tonumber(kept[2]) + 1
    and redis.call('HLEN', pages) == tonumber(kept[3]))
end
