//! `[redis.NAME]` as it is meant, and what a plugin may do with it.

use std::path::PathBuf;
use std::time::Duration;

/// `[redis.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: RedisUrl,
    /// How long a command may take.
    pub timeout: Duration,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// The longest reply in bytes.
    pub reply_limit: usize,
    /// Commands per worker that wait.
    pub queue: usize,
    /// Subscriptions per worker.
    pub subscriptions: usize,
    /// Messages that a subscription keeps.
    pub backlog: usize,
    /// Failures in a row that open the breaker.
    pub failures: u32,
    /// How long it stays open.
    pub pause: Duration,
    /// 2 or 3; `None` tries 3 first.
    pub protocol: Option<u8>,
    /// The authorities of TLS, as a PEM file.
    pub ca: Option<PathBuf>,
}

/// Where a Redis is and how to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Which of the forms.
    pub kind: RedisKind,
    /// Over TLS.
    pub tls: bool,
    /// Servers, first nodes or sentinels; never empty.
    pub addresses: Vec<RedisAddress>,
    /// The user.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The database.
    pub db: i64,
}

/// The password stays out of logs.
impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisUrl")
            .field("kind", &self.kind)
            .field("addresses", &self.addresses)
            .field("db", &self.db)
            .finish_non_exhaustive()
    }
}

/// What stands behind the addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisKind {
    /// A server.
    Single,
    /// Sentinels, which know the server of this name.
    Sentinel(String),
    /// Nodes of a cluster; those that are named know the others.
    Cluster,
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisAddress {
    /// Host and port.
    Tcp(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl std::fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

const FORM: &str = "write \"redis://HOST:PORT/DB\", \"rediss://HOST\", \
                    \"redis+sentinel://A:1,B:2/MASTER\", \"redis+cluster://A:1,B:2\" or \"unix:/PATH\"";

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

fn address(text: &str, port: u16) -> Option<RedisAddress> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, number)) if !number.contains(']') => (host, number.parse().ok()?),
        _ => (text, port),
    };
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    (!host.is_empty() && host.bytes().all(fits) && port != 0)
        .then(|| RedisAddress::Tcp(host.to_owned(), port))
}

impl RedisUrl {
    /// The text of `url`.
    ///
    /// # Errors
    /// What is wrong with it; the password is not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("unix:") {
            return Self::unix(rest);
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| format!("this is not a URL of Redis: {FORM}"))?;
        let (tls, form) = match scheme.strip_prefix("rediss") {
            Some(form) => (true, form),
            None => (false, scheme.strip_prefix("redis").unwrap_or("?")),
        };
        let (login, rest) = rest
            .rsplit_once('@')
            .map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (kind, port, db) = match form {
            "" => (RedisKind::Single, 6379, path),
            "+cluster" => (RedisKind::Cluster, 6379, path),
            "+sentinel" => {
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(
                        "the sentinels' URL lacks the master's name: write \"redis+sentinel://HOST:26379/MASTER\""
                            .to_owned(),
                    );
                }
                (RedisKind::Sentinel(decode(master)), 26379, db)
            }
            _ => return Err(format!("`{scheme}` is not a scheme of Redis: {FORM}")),
        };
        let (user, password) = login.map_or((None, None), |login| {
            let (user, password) = login.split_once(':').unwrap_or(("", login));
            let user = Some(decode(user)).filter(|user| !user.is_empty());
            (user, Some(decode(password)))
        });
        let mut addresses = Vec::new();
        for host in hosts.split(',') {
            let host = address(host, port)
                .ok_or_else(|| format!("`{host}` is not a host and a port: {FORM}"))?;
            addresses.push(host);
        }
        if kind == RedisKind::Single && addresses.len() > 1 {
            return Err(
                "several servers are sentinels or a cluster: write \"redis+sentinel://A:1,B:2/MASTER\" or \"redis+cluster://A:1,B:2\""
                    .to_owned(),
            );
        }
        let db = database(db)?;
        if kind == RedisKind::Cluster && db != 0 {
            return Err("a cluster has one database: leave its number out".to_owned());
        }
        Ok(Self {
            kind,
            tls,
            addresses,
            user,
            password,
            db,
        })
    }

    fn unix(rest: &str) -> Result<Self, String> {
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.starts_with('/') {
            return Err(format!("`{path}` is not a path from the root: {FORM}"));
        }
        let db = match query.strip_prefix("db=") {
            Some(db) => db,
            None if query.is_empty() => "",
            None => return Err(format!("`?{query}` is not known: write \"?db=N\"")),
        };
        Ok(Self {
            kind: RedisKind::Single,
            tls: false,
            addresses: vec![RedisAddress::Unix(PathBuf::from(path))],
            user: None,
            password: None,
            db: database(db)?,
        })
    }
}

fn database(text: &str) -> Result<i64, String> {
    match text {
        "" => Ok(0),
        _ => text
            .parse::<u32>()
            .map(i64::from)
            .map_err(|_| format!("`{text}` is not a database's number: {FORM}")),
    }
}

/// What a plugin may do with a Redis: `"main: GET sale:*"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisRule {
    /// The Redis.
    pub redis: String,
    /// The command in capitals; `None` is any.
    pub command: Option<String>,
    /// Its keys: exact, or a beginning when it ends with `*`; `None` is any.
    pub keys: Option<String>,
}

impl RedisRule {
    /// `"NAME"`, `"NAME: COMMAND"` or `"NAME: COMMAND KEYS"`; `*` is any command.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a rule for Redis: write \"main: GET sale:*\", \"main: PING\" or \"main\""
            )
        };
        let (redis, rest) = text.split_once(": ").unwrap_or((text, ""));
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if redis.is_empty() || !redis.bytes().all(fits) {
            return Err(wrong());
        }
        let mut words = rest.split_whitespace();
        let command = words.next();
        let keys = words.next();
        let wild = |keys: &str| keys.trim_end_matches('*').contains('*') || keys.ends_with("**");
        if words.next().is_some()
            || command.is_some_and(|c| {
                c != "*"
                    && !c
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            })
        {
            return Err(wrong());
        }
        if keys.is_some_and(wild) {
            return Err(format!("`{text}`: `*` stands only at the end of the keys"));
        }
        Ok(Self {
            redis: redis.to_owned(),
            command: command
                .filter(|command| *command != "*")
                .map(str::to_ascii_uppercase),
            keys: keys.filter(|keys| *keys != "*").map(str::to_owned),
        })
    }

    /// Whether it covers a command, in capitals, whatever its keys are.
    #[must_use]
    pub fn fits_any_keys(&self, redis: &str, command: &str) -> bool {
        self.keys.is_none() && self.fits(redis, command, None)
    }

    /// Whether it covers a command, in capitals. `keys` is `None` when nobody knows which of its
    /// arguments are keys.
    #[must_use]
    pub fn fits(&self, redis: &str, command: &str, keys: Option<&[&[u8]]>) -> bool {
        self.redis == redis
            && self.command.as_ref().is_none_or(|own| own == command)
            && self.keys.as_ref().is_none_or(|own| {
                keys.is_some_and(|keys| keys.iter().all(|key| key_fits(own, key)))
            })
    }
}

fn key_fits(pattern: &str, key: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix.as_bytes()),
        None => pattern.as_bytes() == key,
    }
}
