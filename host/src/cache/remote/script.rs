//! What has to happen in Redis as one: scripts, because between a look and a write another server may
//! change the key.
//!
//! Each value stands behind the eight bytes of the emptying (`gen`) after which it came, so that emptying
//! a cache is one write. The changes of keys are counted, keys spread over [`SLOTS`] counters: what a
//! source gave is refused where its counter has moved since the source was asked.

use std::sync::LazyLock;

use crate::redis::Script;

/// Counters of changes: a change of one key refuses what flies for one in so many others.
pub(super) const SLOTS: u32 = 1024;

/// What a flight brought. Keys: value, gen, counts, claim. Arguments: record, milliseconds (0: for
/// ever), channel, message, slot, and what was seen: gen, count, claim (empty: none; count "?": nothing
/// was seen, so the newer one wins). 1: stored; 0: refused.
pub(super) static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local gen = redis.call('GET', KEYS[2])
local before = redis.call('GETRANGE', KEYS[1], 0, 23)
if ARGV[7] == '?' then
  if string.sub(before, 1, 8) == (gen or '\0\0\0\0\0\0\0\0') and #before == 24
    and struct.unpack('>I8', before, 17) >= struct.unpack('>I8', ARGV[1], 9) then return 0 end
else
  if gen and gen ~= ARGV[6] then return 0 end
  local count = redis.call('HGET', KEYS[3], ARGV[5])
  if count and count ~= ARGV[7] then return 0 end
end
if ARGV[8] ~= '' then
  if redis.call('GET', KEYS[4]) ~= ARGV[8] then return 0 end
end
local record = (gen or '\0\0\0\0\0\0\0\0') .. ARGV[1]
if ARGV[2] == '0' then redis.call('SET', KEYS[1], record)
else redis.call('SET', KEYS[1], record, 'PX', ARGV[2]) end
if ARGV[8] ~= '' then redis.call('DEL', KEYS[4]) end
if ARGV[8] ~= '' or #before > 0 then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
return 1
",
    )
});

/// A change. Keys and first arguments as above; an empty record takes the key away; then `written` for
/// one that comes late: the newer one wins ("": it is not late). When the memory is full, no older
/// value stays at least: the key is taken away, and the reply is the error.
pub(super) static CHANGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local gen = redis.call('GET', KEYS[2]) or '\0\0\0\0\0\0\0\0'
if ARGV[6] ~= '' then
  local before = redis.call('GETRANGE', KEYS[1], 0, 23)
  if string.sub(before, 1, 8) == gen and #before == 24
    and struct.unpack('>I8', before, 17) >= tonumber(ARGV[6]) then return 0 end
end
local stored = {}
if ARGV[1] == '' then redis.call('UNLINK', KEYS[1])
elseif ARGV[2] == '0' then stored = redis.pcall('SET', KEYS[1], gen .. ARGV[1])
else stored = redis.pcall('SET', KEYS[1], gen .. ARGV[1], 'PX', ARGV[2]) end
if stored.err then redis.call('UNLINK', KEYS[1]) end
redis.call('DEL', KEYS[4])
redis.call('HINCRBY', KEYS[3], ARGV[5], 1)
redis.call('PUBLISH', ARGV[3], ARGV[4])
if stored.err then return stored end
return 1
",
    )
});

/// An emptying. Key: gen. Arguments: the eight bytes of the epoch, channel, message. An epoch that is
/// not greater counts as the next one. A Redis whose memory is full lets a script that has freed some
/// write, and emptying has to work there.
pub(super) static PURGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local gen, epoch = redis.call('GET', KEYS[1]), ARGV[1]
if gen and struct.unpack('>I8', gen) >= struct.unpack('>I8', epoch) then
  epoch = struct.pack('>I8', struct.unpack('>I8', gen) + 1)
end
redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[1], epoch)
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
",
    )
});

/// A claim. Keys: value, gen, counts, claim, fence, purged. Arguments: the server's eight bytes, milliseconds of
/// the lease, slot. Another's: 0 and what is left of its lease. Else its number, and what a look-up gives: a
/// value may have come since.
pub(super) static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local claim = redis.call('GET', KEYS[4])
if claim and string.sub(claim, 1, 8) ~= ARGV[1] then
  return {0, redis.call('PTTL', KEYS[4])}
end
local fence = redis.call('INCR', KEYS[5])
redis.call('SET', KEYS[4], ARGV[1] .. fence, 'PX', ARGV[2])
return {fence, redis.call('HGET', KEYS[3], ARGV[3]), redis.call('GET', KEYS[2]),
  redis.call('GET', KEYS[1]), redis.call('HGET', KEYS[6], '#')}
",
    )
});

/// Renews a claim. Key: claim. Arguments: token, milliseconds.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
",
    )
});

/// Gives a claim back. Key: claim. Arguments: token, channel, message.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
",
    )
});

/// A purge of answers. Keys: the members by number, their moments (the newest number is under "#").
/// Arguments: member, moment, channel (empty: nobody is told, and an older one changes nothing), message,
/// most. Of more than that the older half becomes one of all that is older. The first number is a time, so
/// that those of a Redis that was emptied are greater than those before. Gives the number.
pub(super) static PURGE_ANSWERS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local function note(member, at)
  local n = string.format('%.0f', (redis.call('HGET', KEYS[2], '#') or ARGV[2]) + 1)
  redis.call('HSET', KEYS[2], '#', n, member, string.format('%.0f', at))
  redis.call('ZADD', KEYS[1], n, member)
  if ARGV[3] ~= '' then
    redis.call('PUBLISH', ARGV[3], ARGV[4] .. struct.pack('>I8I8', tonumber(n), at) .. member)
  end
  return n
end
local at, before = tonumber(ARGV[2]), tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
if ARGV[3] == '' and before >= at then return redis.call('HGET', KEYS[2], '#') end
local n = note(ARGV[1], math.max(at, before))
local most = tonumber(ARGV[5])
if redis.call('ZCARD', KEYS[1]) > most then
  local old, last = redis.call('ZRANGE', KEYS[1], 0, math.floor(most / 2)), 0
  for _, at in ipairs(redis.call('HMGET', KEYS[2], unpack(old))) do
    last = math.max(last, tonumber(at or 0))
  end
  redis.call('ZREM', KEYS[1], unpack(old))
  redis.call('HDEL', KEYS[2], unpack(old))
  n = note('a', last)
end
return n
",
    )
});

/// The purges of answers after a number. Keys as above. Gives the newest number, then members with moments.
pub(super) static SINCE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local n, since = redis.call('HGET', KEYS[2], '#') or '0', ARGV[1]
if tonumber(since) > tonumber(n) then since = '0' end
local members, reply = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. since, '+inf'), {n}
if #members == 0 then return reply end
for i, at in ipairs(redis.call('HMGET', KEYS[2], unpack(members))) do
  reply[#reply + 1] = members[i]
  reply[#reply + 1] = at or '0'
end
return reply
",
    )
});
