//! A value that can be wrong has a type with one `parse`, so that nobody checks it a second time:
//! sizes, times, hosts, paths, addresses and templates.
//!
//! An error is the second half of a diagnostic: what is wrong, and what would be right.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};

pub use super::template::{Part, Template, is_variable_name};

/// The largest program that a route's regex may become: nginx has no limit, but a configuration
/// that takes 10 MB per expression is a mistake.
const REGEX_SIZE_LIMIT: usize = 10 << 20;

/// Bytes of `"64k"`, `"10m"`, `"1g"` or `"512"`.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const FORM: &str = "a size is a string like \"512\", \"64k\", \"10m\" or \"1g\"";
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_u64 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    parse_digits(digits)
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| format!("`{text}` is not a size: {FORM}"))
}

/// The time of `"200ms"`, `"5s"`, `"10m"`, `"1h"`, `"7d"` or several together (`"1h30m"`).
///
/// # Errors
/// What is wrong with the text.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    const FORM: &str = "a time is a string like \"200ms\", \"5s\", \"10m\", \"1h\" or \"1h30m\"";
    let wrong = || format!("`{text}` is not a time: {FORM}");
    let mut rest = text;
    let mut total: u64 = 0;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = parse_digits(&rest[..digits]).ok_or_else(wrong)?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let milliseconds = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        if milliseconds >= last_unit {
            return Err(wrong());
        }
        last_unit = milliseconds;
        rest = &rest[letters..];
        total = number
            .checked_mul(milliseconds)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
    }
    if last_unit == u64::MAX {
        return Err(wrong());
    }
    Ok(Duration::from_millis(total))
}

/// Digits and nothing else: `u64::from_str` would take a sign.
fn parse_digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Whether a component is a Lua runtime: the bundled one, or a file called `lua.wasm`, so that a
/// build of one's own can stand in for it.
#[must_use]
pub fn names_lua(component: &str) -> bool {
    let file = component.rsplit('/').next().unwrap_or(component);
    component == "bundled:lua" || file == "lua.wasm"
}

/// Whether the text can be an environment variable's name.
#[must_use]
pub fn is_environment_variable(text: &str) -> bool {
    !text.is_empty() && !text.contains(['=', '\0', ' '])
}

/// The address of a listener: `"127.0.0.1:8000"`, `"[::1]:8000"`, `"*:8000"` (every IPv4 address).
///
/// # Errors
/// What is wrong with the text.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let full = match text.strip_prefix('*').unwrap_or(text) {
        port if port.starts_with(':') => format!("0.0.0.0{port}"),
        _ => text.to_owned(),
    };
    full.parse().map_err(|_| {
        format!(
            "`{text}` is not an address: write IP:PORT, like \"127.0.0.1:8000\", \"[::1]:8000\" or \"*:8000\""
        )
    })
}

/// Which hosts a route answers for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// This host, in lower case.
    Exact(String),
    /// Every host below: `*.example.com` is kept as `.example.com`.
    Wildcard(String),
}

impl HostPattern {
    /// A name, or `*.` and a name.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (wildcard, name) = match lower.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, lower.as_str()),
        };
        if name.contains('*') {
            return Err(format!(
                "`{text}` is not a host: `*` stands only at the beginning, like \"*.example.com\""
            ));
        }
        let is_ipv6 = name.starts_with('[') && name.ends_with(']');
        if is_ipv6 && !wildcard {
            let address = name[1..name.len() - 1].parse::<std::net::Ipv6Addr>();
            return match address {
                Ok(_) => Ok(Self::Exact(lower)),
                Err(_) => Err(format!("`{text}` is not an IPv6 address in brackets")),
            };
        }
        if name.contains(':') {
            return Err(format!(
                "`{text}` is not a host: a route's host has no port; write \"example.com\""
            ));
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || !name.bytes().all(fits) || name.split('.').any(str::is_empty) {
            return Err(format!(
                "`{text}` is not a host: write a name like \"example.com\" or \"*.example.com\""
            ));
        }
        Ok(if wildcard {
            Self::Wildcard(format!(".{name}"))
        } else {
            Self::Exact(lower)
        })
    }
}

/// Which paths a route answers for.
#[derive(Debug, Clone)]
pub enum PathPattern {
    /// This path.
    Exact(String),
    /// Every path that begins so.
    Prefix {
        /// The beginning: `/api/` of `/api/*`.
        prefix: String,
        /// Regexes are not tried when this is the longest prefix.
        is_final: bool,
    },
    /// Every path in which the regex is found; its bytes are not taken as Unicode, as in nginx.
    Regex(Regex),
}

impl PathPattern {
    /// A path: exact, or a prefix when it ends with `*`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, is_final: bool) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!(
                "`{text}` is not a path: a path begins with `/`, like \"/{}\"",
                text.trim_start_matches('*')
            ));
        }
        if let Some(at) = text.find(['?', '#']) {
            return Err(format!(
                "`{text}` is not a path: it has no query and no fragment; write \"{}\"",
                &text[..at]
            ));
        }
        let (prefix, is_prefix) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        if prefix.contains('*') {
            return Err(format!(
                "`{text}` is not a path: `*` stands only at the end, like \"/api/*\"; use `regex` for more"
            ));
        }
        if is_final && !is_prefix {
            return Err(
                "`final` is for a prefix, a path that ends with `*`: an exact path is final anyway"
                    .to_owned(),
            );
        }
        let prefix = prefix.to_owned();
        Ok(if is_prefix {
            Self::Prefix { prefix, is_final }
        } else {
            Self::Exact(prefix)
        })
    }

    /// A regular expression, searched in the path.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse_regex(text: &str) -> Result<Self, String> {
        RegexBuilder::new(text)
            .unicode(false)
            .size_limit(REGEX_SIZE_LIMIT)
            .build()
            .map(Self::Regex)
            .map_err(|error| {
                // The library draws a picture; its last line is the reason.
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim();
                let reason = reason.strip_prefix("error: ").unwrap_or(reason);
                format!("the regular expression does not compile: {reason}")
            })
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(two)) => one == two,
            (
                Self::Prefix { prefix, is_final },
                Self::Prefix {
                    prefix: prefix_two,
                    is_final: is_final_two,
                },
            ) => prefix == prefix_two && is_final == is_final_two,
            (Self::Regex(one), Self::Regex(two)) => one.as_str() == two.as_str(),
            (Self::Exact(_) | Self::Prefix { .. } | Self::Regex(_), _) => false,
        }
    }
}

impl Eq for PathPattern {}

/// A range of addresses: `"10.0.0.0/8"`, `"::1"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

impl Cidr {
    /// An address, or an address, `/` and how many bits count.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not an address range: write \"10.0.0.0/8\", \"127.0.0.1\" or \"fd00::/8\""
            )
        };
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(parse_digits(length).ok_or_else(wrong)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(bits), u8::try_from).map_err(|_| wrong())?;
        if length > bits {
            return Err(wrong());
        }
        Ok(Self { address, length })
    }

    /// Whether the address is in the range; an IPv4 address that came over an IPv6 socket counts
    /// as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let different = u32::from(base) ^ u32::from(address);
                different
                    .checked_shr(32 - u32::from(self.length))
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let different = u128::from(base) ^ u128::from(address);
                different
                    .checked_shr(128 - u32::from(self.length))
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// A host and a port that a plugin may connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address in lower case without brackets; `*` is any, `*.x` all below `x`.
    pub host: String,
    /// The port; `None` is any.
    pub port: Option<u16>,
}

impl HostPort {
    /// `"127.0.0.1:6379"`, `"*.example.com:443"`, `"[::1]:*"`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a host and a port: write \"127.0.0.1:6379\", \"*.example.com:443\" or \"example.com:*\""
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host).to_ascii_lowercase();
        let is_name = HostPattern::parse(&host).is_ok() || host == "*";
        if bracketed.is_none() && !is_name || bracketed.is_some() && host.parse::<IpAddr>().is_err()
        {
            return Err(wrong());
        }
        let port = match port {
            "*" => None,
            port => Some(port.parse().map_err(|_| wrong())?),
        };
        Ok(Self { host, port })
    }

    /// Whether a connection to this host (as the plugin names it) and port is covered.
    #[must_use]
    pub fn fits(&self, host: &str, port: u16) -> bool {
        self.port.is_none_or(|own| own == port) && host_fits(&self.host, host)
    }
}

/// Scheme, host and port that a plugin's HTTP client may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `http` or `https`.
    pub scheme: String,
    /// A name or an address in lower case without brackets; `*` is any, `*.x` all below `x`.
    pub host: String,
    /// The port; `None` is any.
    pub port: Option<u16>,
}

impl Origin {
    /// `"https://api.example.com"`, `"http://127.0.0.1:8081"`, `"https://*.example.com:*"`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not an origin: write \"https://api.example.com\" or \"http://127.0.0.1:8081\", without a path"
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(wrong()),
        };
        let has_port = rest
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.contains(']'));
        let full = if has_port {
            rest.to_owned()
        } else {
            format!("{rest}:{default_port}")
        };
        let HostPort { host, port } = HostPort::parse(&full).map_err(|_| wrong())?;
        Ok(Self {
            scheme: scheme.to_owned(),
            host,
            port,
        })
    }

    /// Whether a request to this origin is covered.
    #[must_use]
    pub fn fits(&self, scheme: &str, host: &str, port: u16) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
            && self.port.is_none_or(|own| own == port)
            && host_fits(&self.host, host)
    }
}

/// Compares without case and without the brackets of an IPv6 address.
fn host_fits(pattern: &str, host: &str) -> bool {
    let unbracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = unbracketed.unwrap_or(host);
    if pattern == "*" {
        return true;
    }
    match pattern.strip_prefix('*') {
        Some(suffix) => {
            host.len() > suffix.len()
                && host.is_char_boundary(host.len() - suffix.len())
                && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
        }
        None => pattern.eq_ignore_ascii_case(host),
    }
}
