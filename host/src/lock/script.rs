//! What has to happen in Redis as one, because between a look and a write another server may take the lock.
//!
//! A lock is a key that ends by itself and holds its owner's token. The owner's number comes from a counter
//! of the table, which stays when locks go, and is never behind Redis' clock in tenths of a millisecond:
//! so it grows although Redis has forgotten it.
//!
//! A mark stands for all that Redis knows of a table. A server that knows another mark, or of a greater
//! number than the counter, knows that Redis has lost something: then it gets no lock before it has looked.

use std::sync::LazyLock;

use crate::redis::Script;

/// Keys: counter, mark, pause, lock. Arguments: the greatest number that the server knows, the mark that it
/// knows, token, hold in milliseconds. 1 and the number; 0 and what is left of another's hold; -1 and what is
/// left of a pause; -2 where it has to look.
pub(super) static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local number = tonumber(redis.call('GET', KEYS[1]) or '0')
if redis.call('GET', KEYS[2]) ~= ARGV[2] or number < tonumber(ARGV[1]) then return {-2, 0} end
local paused = redis.call('PTTL', KEYS[3])
if paused > 0 then return {-1, paused} end
local left = redis.call('PTTL', KEYS[4])
if left ~= -2 then return {0, left} end
local time = redis.call('TIME')
local clock = time[1] * 10000 + math.floor(time[2] / 100)
number = redis.call('INCR', KEYS[1])
if number < clock then
  number = clock
  redis.call('SET', KEYS[1], string.format('%.0f', number))
end
redis.call('SET', KEYS[4], ARGV[3], 'PX', ARGV[4])
return {1, number}
",
    )
});

/// Gives the mark, a new one where Redis has lost something. If the server knows another one, nobody gets a
/// lock for a while: each server has that time to put back what its owners have. Keys: counter, mark, pause.
/// Arguments: the greatest number and the mark that the server knows (empty: none), a new mark, the pause in
/// milliseconds.
pub(super) static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local number = tonumber(redis.call('GET', KEYS[1]) or '0')
local mark = redis.call('GET', KEYS[2])
local behind = number < tonumber(ARGV[1])
if behind or not mark then
  mark = ARGV[3]
  redis.call('SET', KEYS[2], mark)
  if behind then redis.call('SET', KEYS[1], ARGV[1]) end
end
if ARGV[2] ~= '' and mark ~= ARGV[2] then redis.call('SET', KEYS[3], '1', 'PX', ARGV[4]) end
return mark
",
    )
});

/// Begins a hold anew. Keys: lock, mark. Arguments: token, the mark that the server knows, milliseconds. 1:
/// done; 0: it is not the owner's; -2: Redis has lost something, the server has to look.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return -2 end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
",
    )
});

/// Gives a lock back. Keys and first arguments as above, but that an empty mark is not compared; then channel
/// and message. Replies as above.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if ARGV[2] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[2] then return -2 end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
",
    )
});
