//! What the gateway has to know of Redis' commands: which arguments are keys (for `allow.redis`), and
//! which commands would spoil a connection that others share.

/// First key, last key (from the end when negative), step.
type Span = (usize, isize, usize);

/// Commands by where their keys are; those of one span together.
const KEYS: &[(Span, &str)] = &[
    (
        (1, 1, 1),
        "APPEND BITCOUNT BITFIELD BITFIELD_RO BITPOS DECR DECRBY DUMP EXPIRE EXPIREAT EXPIRETIME GEOADD GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETDEL GETEX GETRANGE GETSET HDEL HEXISTS HEXPIRE HGET HGETALL HGETDEL HGETEX HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET HPERSIST HPEXPIRE HPTTL HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN HTTL HVALS INCR INCRBY INCRBYFLOAT LINDEX LINSERT LLEN LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PFADD PSETEX PTTL PUBLISH RESTORE RPOP RPUSH RPUSHX SADD SCARD SET SETBIT SETEX SETNX SETRANGE SISMEMBER SMEMBERS SMISMEMBER SORT_RO SPOP SPUBLISH SRANDMEMBER SREM SSCAN STRLEN SUBSTR TTL TYPE XACK XADD XAUTOCLAIM XCLAIM XDEL XLEN XPENDING XRANGE XREVRANGE XSETID XTRIM ZADD ZCARD ZCOUNT ZINCRBY ZLEXCOUNT ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE",
    ),
    (
        (1, -1, 1),
        "DEL EXISTS MGET PFCOUNT PFMERGE PSUBSCRIBE SDIFF SDIFFSTORE SINTER SINTERSTORE SUBSCRIBE SUNION SUNIONSTORE TOUCH UNLINK",
    ),
    ((1, -1, 2), "MSET MSETNX"),
    (
        (1, 2, 1),
        "COPY GEOSEARCHSTORE LCS LMOVE RENAME RENAMENX RPOPLPUSH SMOVE ZRANGESTORE",
    ),
    ((2, -1, 1), "BITOP"),
    ((2, 2, 1), "OBJECT XGROUP XINFO"),
];

/// Commands whose keys are counted: the position of their number; the keys follow it.
const COUNTED: &[(&str, usize)] = &[
    ("EVAL", 2),
    ("EVALSHA", 2),
    ("EVAL_RO", 2),
    ("EVALSHA_RO", 2),
    ("FCALL", 2),
    ("FCALL_RO", 2),
    ("SINTERCARD", 1),
    ("ZINTER", 1),
    ("ZUNION", 1),
    ("ZDIFF", 1),
    ("ZINTERCARD", 1),
    ("LMPOP", 1),
    ("ZMPOP", 1),
];

/// Commands without keys.
const KEYLESS: &str = "PING ECHO TIME DBSIZE LASTSAVE INFO ROLE LOLWUT PUBSUB";

fn has(list: &str, command: &str) -> bool {
    list.split(' ').any(|name| name == command)
}

/// The command's name in capitals; `None` when there is no command.
#[must_use]
pub fn name<A: AsRef<[u8]>>(arguments: &[A]) -> Option<String> {
    let name = arguments.first()?.as_ref();
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).to_ascii_uppercase())
}

/// What a connection that others share cannot carry, and what to do instead. Asked of each command.
fn instead_of(command: &str) -> Option<&'static str> {
    Some(match command {
        "MULTI" | "EXEC" | "DISCARD" => "use a transaction, which sends its commands together",
        "WATCH" | "UNWATCH" => "the connection is shared by all requests; use a script",
        "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE"
        | "SUNSUBSCRIBE" => "use a subscription",
        "SELECT" => "the connection is shared by all requests; write the number into `url`",
        "AUTH" | "HELLO" => "user and password stand in `url`",
        "MONITOR" | "QUIT" | "RESET" | "SYNC" | "PSYNC" | "CLIENT" => {
            "the connection is shared by all requests"
        }
        "BLPOP" | "BRPOP" | "BLMOVE" | "BLMPOP" | "BRPOPLPUSH" | "BZPOPMIN" | "BZPOPMAX"
        | "BZMPOP" | "WAIT" | "WAITAOF" => BLOCKS,
        _ => return None,
    })
}

const BLOCKS: &str = "it would block the connection that all requests share";

/// Why a command cannot be sent on a shared connection, if it cannot.
#[must_use]
pub fn spoils(command: &str, arguments: &[Vec<u8>]) -> Option<String> {
    let blocks = matches!(command, "XREAD" | "XREADGROUP")
        && arguments.iter().any(|a| a.eq_ignore_ascii_case(b"BLOCK"));
    let reason = match blocks {
        true => BLOCKS,
        false => instead_of(command)?,
    };
    Some(format!("{command}: {reason}"))
}

/// The keys among a command's arguments; `None` when it is not known which they are.
#[must_use]
pub fn keys<'a, A: AsRef<[u8]>>(command: &str, arguments: &'a [A]) -> Option<Vec<&'a [u8]>> {
    if has(KEYLESS, command) {
        return Some(Vec::new());
    }
    if matches!(command, "XREAD" | "XREADGROUP") {
        // The names of the streams, and as many positions in them.
        let word = |argument: &A| argument.as_ref().eq_ignore_ascii_case(b"STREAMS");
        let rest = arguments.get(arguments.iter().position(word)? + 1..)?;
        let keys = rest.get(..rest.len() / 2).filter(|keys| !keys.is_empty())?;
        return Some(keys.iter().map(AsRef::as_ref).collect());
    }
    if let Some((_, at)) = COUNTED.iter().find(|(name, _)| *name == command) {
        let count = std::str::from_utf8(arguments.get(*at)?.as_ref())
            .ok()?
            .parse::<usize>()
            .ok()?;
        let keys = arguments.get(at + 1..(at + 1).checked_add(count)?)?;
        return Some(keys.iter().map(AsRef::as_ref).collect());
    }
    let (first, last, step) = KEYS.iter().find(|(_, names)| has(names, command))?.0;
    let end = if last < 0 {
        arguments.len()
    } else {
        usize::try_from(last).ok()? + 1
    };
    let keys = arguments.get(first..end)?;
    let keys: Vec<_> = keys.iter().step_by(step).map(AsRef::as_ref).collect();
    (!keys.is_empty()).then_some(keys)
}

#[cfg(test)]
mod tests {
    use super::{keys, name, spoils};

    fn of(line: &str) -> Option<String> {
        let arguments: Vec<Vec<u8>> = line.split(' ').map(|a| a.as_bytes().to_vec()).collect();
        let keys = keys(&name(&arguments)?, &arguments)?;
        let keys: Vec<_> = keys
            .iter()
            .map(|key| String::from_utf8_lossy(key))
            .collect();
        Some(keys.join(" "))
    }

    #[test]
    fn finds_keys() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of("get a"), some("a"));
        assert_eq!(of("set a b ex 5"), some("a"));
        assert_eq!(of("mset a 1 b 2"), some("a b"));
        assert_eq!(of("DEL a b c"), some("a b c"));
        assert_eq!(of("BITOP and d a b"), some("d a b"));
        assert_eq!(of("EVAL return 2 a b c"), some("a b"));
        assert_eq!(of("EVALSHA abc 2 a b c"), some("a b"));
        assert_eq!(of("EVALSHA abc 3 a b"), None);
        assert_eq!(of("EVALSHA abc 18446744073709551615 a"), None);
        assert_eq!(of("XREAD COUNT 2 STREAMS a b 0 0"), some("a b"));
        assert_eq!(of("XREADGROUP GROUP g c STREAMS a >"), some("a"));
        assert_eq!(of("XREAD STREAMS"), None);
        assert_eq!(of("PING"), some(""));
        assert_eq!(of("GET"), None);
        assert_eq!(of("FLUSHALL"), None);
    }

    #[test]
    fn names_what_spoils_a_shared_connection() {
        let blocked = [b"XREAD".to_vec(), b"block".to_vec(), b"0".to_vec()];
        assert!(spoils("XREAD", &blocked).is_some());
        assert!(spoils("XREAD", &blocked[..1]).is_none());
        assert!(spoils("MULTI", &[]).is_some_and(|text| text.contains("transaction")));
        assert!(spoils("GET", &[]).is_none());
    }
}
