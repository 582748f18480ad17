"""The Lua scripts: each is one atomic step in Redis, and each may be sent again when its answer was lost."""

from __future__ import annotations

KNOWN = """
-- Whether Redis has gone back to a state from before us: its writer led before us (or there is none), and has not gone
-- on since, as an earlier leader that slept may do once Redis has forgotten us. `known`: the last record of those
-- before us, and their identities.
local function went_back(writer, last, known)
  local before = string.find(' ' .. known .. ' ', ' ' .. writer .. ' ', 1, true) ~= nil
  return (writer == '' or before) and last <= tonumber(string.match(known, '^%d+'))
end
"""
WHOLE = """
-- Whether all is there that the head of the journal says there is: somebody may have deleted a key, or Redis, told to,
-- have evicted it. An older version of blockyard does not say, and where one wrote last what is said is old.
local function whole(head, schema, spec, log, pages)
  local kept = redis.call('HMGET', head, 'seq', 'first', 'pages', 'counted')
  return kept[4] ~= (kept[1] or '0') or (redis.call('EXISTS', schema, spec) == 2
    and redis.call('XLEN', log) == tonumber(kept[1] or '0') - tonumber(kept[2]) + 1
    and redis.call('HLEN', pages) == tonumber(kept[3]))
end
"""

TAKE = """
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
"""

MARK = """
local id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
-- Note which start of Redis holds all that its leader knows, and what it promises ('' as promise: note nothing).
local function mark(head, promise)
  if promise ~= '' and id and redis.call('HGET', head, 'server') ~= id .. ' ' .. promise then
    redis.call('HSET', head, 'server', id .. ' ' .. promise)
  end
end
"""

RENEW = (
    KNOWN
    + MARK
    + WHOLE
    + """
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
"""
)

RESIGN = """
-- Free the lock of a leader that goes, or is dead. KEYS: lock. ARGV: its identity.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""

BEGIN = (
    MARK
    + """
-- Store what a run is; with ARGV[4] == '1' drop what there was of it.
-- KEYS: head, schema, spec, log, pages, errors, history, pages of the history.
-- ARGV: identity, schema, spec, fresh, promise to note for a new run.
local writer = redis.call('HGET', KEYS[1], 'writer') or ''
if writer ~= ARGV[1] then
  return {'refused', writer}
end
if ARGV[4] == '1' then
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8])
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
"""
)

COMMIT = """
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
"""

STAGE = (
    KNOWN
    + """
-- Lay pages aside for SWITCH, if nobody else leads; with ARGV[4] == '1' they are the first ones.
-- KEYS: lock, head, staged. ARGV: identity, lock ms, those who led before, first, page keys and values.
-- Gives {'stored' | 'refused', leader}.
local writer = redis.call('HGET', KEYS[2], 'writer') or ''
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return {'refused', held}
end
local last = tonumber(redis.call('HGET', KEYS[2], 'seq') or '0')
if writer ~= ARGV[1] and not went_back(writer, last, ARGV[3]) then
  return {'refused', writer}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[4] == '1' then
  redis.call('DEL', KEYS[3])
end
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
end
return {'stored', ''}
"""
)

SWITCH = (
    KNOWN
    + MARK
    + WHOLE
    + """
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
"""
)

NOTE = """
-- Keep a note about a pool, if we lead. KEYS: head, scaling. ARGV: identity, pool, note.
-- Gives {'stored' | 'refused', leader}.
local writer = redis.call('HGET', KEYS[1], 'writer') or ''
if writer ~= ARGV[1] then
  return {'refused', writer}
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return {'stored', ''}
"""

RECORD = """
-- Keep a piece of the record of the run, once, if we lead. KEYS: head, history, pages of the history.
-- ARGV: identity, number of the piece, time, batches ('' for none), drop below, page keys and values.
-- Gives {'stored' | 'already' | 'refused', writer, last piece before}.
local head = redis.call('HMGET', KEYS[1], 'writer', 'kept')
local writer, last = head[1] or '', tonumber(head[2] or '0')
if writer ~= ARGV[1] then
  return {'refused', writer, last}
end
if tonumber(ARGV[2]) <= last then
  return {'already', writer, last}
end
if ARGV[4] ~= '' then
  redis.call('XADD', KEYS[2], ARGV[2] .. '-0', 't', ARGV[3], 'b', ARGV[4])
end
for i = 6, #ARGV, 2 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
end
if tonumber(ARGV[5]) > 0 then
  redis.call('XTRIM', KEYS[2], 'MINID', ARGV[5] .. '-0')
end
redis.call('HSET', KEYS[1], 'kept', ARGV[2])
return {'stored', writer, last}
"""

LACKS = (
    WHOLE
    + """
-- Whether something of the run was lost. KEYS: head, schema, spec, log, pages.
return whole(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]) and 0 or 1
"""
)

RIGHTS = """
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
"""
