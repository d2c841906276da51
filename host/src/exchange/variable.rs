//! nginx's variables: by name and meaning, read from an exchange when somebody asks.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;

use super::Exchange;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::time_cache;

/// Whether a variable is made of the answer's headers.
#[must_use]
pub fn is_of_sent_head(name: &str) -> bool {
    name == "bytes_sent" || name.starts_with("sent_http_")
}

/// Why a variable could not be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetError {
    /// No such variable.
    Unknown,
    /// The server computes it.
    ReadOnly,
}

/// The values of a request's own variables; a subrequest may share them.
#[derive(Debug, Default)]
pub struct Variables(Rc<RefCell<Values>>);

type Values = Vec<(String, Vec<u8>)>;

impl Variables {
    fn write(&self, name: &str, out: &mut Vec<u8>) -> bool {
        let values = self.0.borrow();
        let found = values.iter().find(|(n, _)| n == name);
        found
            .map(|(_, value)| out.extend_from_slice(value))
            .is_some()
    }

    fn has(&self, name: &str) -> bool {
        self.0.borrow().iter().any(|(n, _)| n == name)
    }

    /// Gives a variable a value.
    pub fn set(&self, name: &str, value: Vec<u8>) {
        let mut values = self.0.borrow_mut();
        match values.iter_mut().find(|(n, _)| n == name) {
            Some(slot) => slot.1 = value,
            None => values.push((name.to_owned(), value)),
        }
    }

    /// The same variables, for another exchange.
    #[must_use]
    pub fn share(&self) -> Self {
        Self(self.0.clone())
    }

    /// Variables of their own with the same values.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// Forgets all; the room stays unless somebody shares them.
    pub(super) fn clear(&mut self) {
        match Rc::get_mut(&mut self.0) {
            Some(values) => values.get_mut().clear(),
            None => *self = Self::default(),
        }
    }
}

/// Variables that the server computes; `set` answers `ReadOnly` for these.
const COMPUTED: &[&str] = &[
    "args",
    "query_string",
    "is_args",
    "uri",
    "document_uri",
    "request_uri",
    "request_method",
    "request",
    "scheme",
    "host",
    "hostname",
    "http_host",
    "remote_addr",
    "remote_port",
    "binary_remote_addr",
    "server_addr",
    "server_port",
    "server_name",
    "server_protocol",
    "request_id",
    "request_time",
    "request_length",
    "request_body",
    "content_length",
    "content_type",
    "status",
    "bytes_sent",
    "body_bytes_sent",
    "msec",
    "time_local",
    "time_iso8601",
    "connection",
    "connection_requests",
    "document_root",
    "request_filename",
    "nginx_version",
    "pid",
    "https",
    "request_completion",
    "remote_user",
    "route",
    "upstream_cache_status",
];

/// The value of a variable; `None` when it is unset or unknown.
pub fn value(x: &mut Exchange, name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    write(x, name, &mut out).then_some(out)
}

/// Appends a variable's value; false when it is unset or unknown.
pub fn write(x: &mut Exchange, name: &str, out: &mut Vec<u8>) -> bool {
    if x.variables.write(name, out) {
        return true;
    }
    if let Some(argument) = name.strip_prefix("arg_") {
        return find_argument(x.request.target.query().unwrap_or(""), argument)
            .map(|v| out.extend_from_slice(v.as_bytes()))
            .is_some();
    }
    if let Some(header) = name.strip_prefix("http_") {
        return joined(&x.request.headers, header, out);
    }
    if let Some(header) = name.strip_prefix("sent_http_") {
        return joined(&x.response.headers, header, out);
    }
    if let Some(cookie) = name.strip_prefix("cookie_") {
        return find_cookie(x, cookie, out);
    }
    request_variable(x, name, out)
        || connection_variable(x, name, out)
        || answer_variable(x, name, out)
}

/// All values of a header, as nginx joins them.
fn joined(headers: &http::HeaderMap, variable: &str, out: &mut Vec<u8>) -> bool {
    let name: String = variable
        .chars()
        .map(|c| {
            if c == '_' {
                '-'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect();
    let mut found = false;
    for value in headers.get_all(name) {
        if found {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(value.as_bytes());
        found = true;
    }
    found
}

/// The first argument of that name, undecoded, without case, as `$arg_NAME` is in nginx.
fn find_argument<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

fn find_cookie(x: &Exchange, name: &str, out: &mut Vec<u8>) -> bool {
    for header in x.request.headers.get_all(http::header::COOKIE) {
        for pair in header.as_bytes().split(|b| *b == b';') {
            let pair = pair.trim_ascii();
            if let Some(at) = pair.iter().position(|b| *b == b'=')
                && pair[..at].eq_ignore_ascii_case(name.as_bytes())
            {
                out.extend_from_slice(&pair[at + 1..]);
                return true;
            }
        }
    }
    false
}

/// The decoded path, as `$uri` is in nginx.
pub fn decoded_path(x: &Exchange) -> std::borrow::Cow<'_, [u8]> {
    percent_encoding::percent_decode_str(x.request.target.path()).into()
}

fn header<'a>(x: &'a Exchange, name: &http::HeaderName) -> Option<&'a [u8]> {
    x.request.headers.get(name).map(http::HeaderValue::as_bytes)
}

fn request_variable(x: &mut Exchange, name: &str, out: &mut Vec<u8>) -> bool {
    match name {
        "uri" | "document_uri" => out.extend_from_slice(&decoded_path(x)),
        "request_uri" => out.extend_from_slice(x.request.original.as_str().as_bytes()),
        "args" | "query_string" => match x.request.target.query() {
            Some(query) => out.extend_from_slice(query.as_bytes()),
            None => return false,
        },
        "is_args" => {
            out.extend_from_slice(if x.request.target.query().is_some_and(|q| !q.is_empty()) {
                b"?"
            } else {
                b""
            })
        }
        "request_method" => out.extend_from_slice(x.request.method.as_str().as_bytes()),
        "request" => request_line(x, out),
        "server_protocol" => out.extend_from_slice(protocol(x.request.version).as_bytes()),
        "host" => out.extend_from_slice(x.request.host().to_ascii_lowercase().as_bytes()),
        "content_length" => match header(x, &http::header::CONTENT_LENGTH) {
            Some(value) => out.extend_from_slice(value),
            None => return false,
        },
        "content_type" => match header(x, &http::header::CONTENT_TYPE) {
            Some(value) => out.extend_from_slice(value),
            None => return false,
        },
        "request_body" => match x.body.whole() {
            Some(body) => out.extend_from_slice(body),
            None => return false,
        },
        "request_id" => text(out, format_args!("{:032x}", x.id())),
        "route" => out.extend_from_slice(x.route.as_bytes()),
        "document_root" => match &x.document_root {
            Some(root) => out.extend_from_slice(root.as_bytes()),
            None => return false,
        },
        "request_filename" => match &x.document_root {
            Some(root) => {
                out.extend_from_slice(root.as_bytes());
                out.extend_from_slice(&decoded_path(x));
            }
            None => return false,
        },
        "remote_user" => match remote_user(x) {
            Some(user) => out.extend_from_slice(user.as_bytes()),
            None => return false,
        },
        _ => return false,
    }
    true
}

fn connection_variable(x: &Exchange, name: &str, out: &mut Vec<u8>) -> bool {
    let Some(connection) = &x.connection else {
        return false;
    };
    match name {
        "remote_addr" => text(out, format_args!("{}", connection.remote.ip())),
        "remote_port" => text(out, format_args!("{}", connection.remote.port())),
        "binary_remote_addr" => match connection.remote.ip() {
            std::net::IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            std::net::IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        },
        "server_addr" => text(out, format_args!("{}", connection.local.ip())),
        "server_port" => text(out, format_args!("{}", connection.local.port())),
        "server_name" => out.extend_from_slice(x.request.host().as_bytes()),
        "connection" => text(out, format_args!("{}", connection.serial)),
        "connection_requests" => text(out, format_args!("{}", x.request_number)),
        "scheme" => out.extend_from_slice(b"http"),
        _ => return false,
    }
    true
}

fn bytes_sent(x: &mut Exchange) -> u64 {
    let head = match x.downstream.headless() {
        true => 0,
        false => x.response.head_bytes(),
    };
    head + x.outgoing().taken + x.downstream.sent()
}

fn bytes_received(x: &Exchange) -> u64 {
    x.request.head_bytes() + x.body.bytes_read() + x.downstream.received()
}

fn answer_variable(x: &mut Exchange, name: &str, out: &mut Vec<u8>) -> bool {
    match name {
        "status" => text(out, format_args!("{:03}", x.response.status)),
        "body_bytes_sent" => text(
            out,
            format_args!("{}", x.outgoing().taken + x.downstream.sent()),
        ),
        "bytes_sent" => text(out, format_args!("{}", bytes_sent(x))),
        "request_time" => {
            let elapsed = x.started.elapsed();
            text(
                out,
                format_args!("{}.{:03}", elapsed.as_secs(), elapsed.subsec_millis()),
            );
        }
        "request_length" => text(out, format_args!("{}", bytes_received(x))),
        "request_completion" => out.extend_from_slice(if x.output.ended && !x.output.broken {
            b"OK"
        } else {
            b""
        }),
        "msec" => {
            let now = time_cache::now_ms();
            text(out, format_args!("{}.{:03}", now / 1000, now % 1000));
        }
        "time_local" => out.extend_from_slice(&time_cache::common_log_time()),
        "time_iso8601" => out.extend_from_slice(&time_cache::iso_time()),
        "pid" => text(out, format_args!("{}", std::process::id())),
        "hostname" => text(
            out,
            format_args!("{}", rustix::system::uname().nodename().to_string_lossy()),
        ),
        "https" => {}
        "upstream_cache_status" => match x.cache_status {
            Some(status) => out.extend_from_slice(status.as_bytes()),
            None => return false,
        },
        _ => return false,
    }
    true
}

fn text(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    let mut buffer = String::new();
    // Writing to a string cannot fail.
    let _infallible = buffer.write_fmt(arguments).is_ok();
    out.extend_from_slice(buffer.as_bytes());
}

/// `HTTP/1.1`.
#[must_use]
pub fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// The request's first line, for logs.
pub fn request_line(x: &Exchange, out: &mut Vec<u8>) {
    out.extend_from_slice(x.request.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(x.request.original.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(protocol(x.request.version).as_bytes());
}

/// The user of `Authorization: Basic`.
fn remote_user(x: &Exchange) -> Option<String> {
    let header = std::str::from_utf8(header(x, &http::header::AUTHORIZATION)?).ok()?;
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASIC.decode(encoded.trim()).ok()?;
    let user = decoded.split(|b| *b == b':').next()?;
    String::from_utf8(user.to_vec()).ok()
}

/// Clients leave out padding, and nginx takes it so.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Sets a variable of the route, or `args`.
///
/// # Errors
/// When there is no such variable, or the server computes it.
pub fn set(x: &mut Exchange, name: &str, value: Vec<u8>) -> Result<(), SetError> {
    if name == "args" {
        let text = String::from_utf8_lossy(&value);
        let target = if text.is_empty() {
            x.request.target.path().to_owned()
        } else {
            format!("{}?{text}", x.request.target.path())
        };
        return x
            .request
            .set_target(&target)
            .map_err(|_| SetError::ReadOnly);
    }
    if x.variables.has(name) || x.settable.iter().any(|n| n == name) {
        x.variables.set(name, value);
        return Ok(());
    }
    let computed = COMPUTED.contains(&name)
        || ["arg_", "http_", "sent_http_", "cookie_"]
            .iter()
            .any(|p| name.starts_with(p));
    Err(if computed {
        SetError::ReadOnly
    } else {
        SetError::Unknown
    })
}

/// The path that is routed: decoded, slashes merged, `.` and `..` resolved, as nginx does it; `None`
/// when it leads above the root or holds a zero byte.
#[must_use]
pub fn normal_path(request: &super::Request) -> Option<std::borrow::Cow<'_, [u8]>> {
    let raw = request.target.path();
    let bytes = raw.as_bytes();
    if memchr::memchr(b'%', bytes).is_none() && !raw.contains("//") && !raw.contains("/.") {
        return Some(std::borrow::Cow::Borrowed(bytes));
    }
    let decoded: Vec<u8> = percent_encoding::percent_decode(bytes).collect();
    if decoded.contains(&0) {
        return None;
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut folder = true;
    for part in decoded.split(|b| *b == b'/').skip(1) {
        folder = matches!(part, b"" | b"." | b"..");
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    let mut path = Vec::with_capacity(decoded.len());
    for part in &parts {
        path.push(b'/');
        path.extend_from_slice(part);
    }
    if folder || path.is_empty() {
        path.push(b'/');
    }
    Some(path.into())
}
