//! The answers that nobody wrote, because a failure must look the same wherever it happens: the one
//! table from an error to its status, and the pages in nginx's shape, made once.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::error::{ErrorKind, RequestError};

/// The status that answers an error. A request that ends with 499 gets no answer; the log has it.
#[must_use]
pub fn status(error: &RequestError) -> u16 {
    status_of(error.kind)
}

/// The one table, without a wildcard: a new kind does not compile before it has a status.
#[must_use]
pub fn status_of(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::BadRequest => 400,
        ErrorKind::Forbidden => 403,
        ErrorKind::NotFound => 404,
        ErrorKind::MethodNotAllowed => 405,
        ErrorKind::RequestTimeout => 408,
        ErrorKind::PreconditionFailed => 412,
        ErrorKind::BodyTooLarge => 413,
        ErrorKind::UriTooLong => 414,
        ErrorKind::RangeNotSatisfiable => 416,
        ErrorKind::HeaderTooLarge => 431,
        ErrorKind::ClientClosed => 499,
        ErrorKind::PluginTrap
        | ErrorKind::PluginFailed
        | ErrorKind::PluginCpu
        | ErrorKind::PluginMemory
        | ErrorKind::RerouteLimit
        | ErrorKind::SubrequestLimit
        | ErrorKind::Host => 500,
        ErrorKind::UpstreamConnect | ErrorKind::UpstreamFailed | ErrorKind::NoLivePeer => 502,
        ErrorKind::PoolExhausted | ErrorKind::Draining => 503,
        ErrorKind::PluginDeadline | ErrorKind::UpstreamTimeout => 504,
    }
}

/// First and last status that may have a page.
const FIRST: u16 = 300;
const LAST: u16 = 511;
/// The type of every page.
pub const CONTENT_TYPE: &str = "text/html";

/// The page of a status of 300..=511 that has a name; `None` for others, and for 304 and 499, whose
/// answers have no body.
#[must_use]
pub fn page(status: u16) -> Option<&'static Bytes> {
    static PAGES: LazyLock<Vec<Option<Bytes>>> =
        LazyLock::new(|| (FIRST..=LAST).map(build).collect());
    let index = status.checked_sub(FIRST)?;
    PAGES.get(usize::from(index))?.as_ref()
}

fn build(status: u16) -> Option<Bytes> {
    if matches!(status, 304 | 499) {
        return None;
    }
    let title = format!("{status} {}", reason(status)?);
    Some(Bytes::from(format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n\
         <hr><center>phasor</center>\r\n</body>\r\n</html>\r\n"
    )))
}

/// The reason phrase of a status, in nginx's words.
#[must_use]
pub fn reason(status: u16) -> Option<&'static str> {
    Some(match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        other => return error_reason(other),
    })
}

fn error_reason(status: u16) -> Option<&'static str> {
    Some(match status {
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Time-out",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        444 => "No Response",
        451 => "Unavailable For Legal Reasons",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{page, reason, status_of};
    use crate::error::ErrorKind;

    #[test]
    fn every_kind_has_a_status_with_a_name() {
        for &kind in ErrorKind::ALL {
            assert!(reason(status_of(kind)).is_some(), "{kind:?}");
        }
    }

    #[test]
    fn pages_have_the_shape_of_nginx() {
        let text = "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1></center>\r\n<hr><center>phasor</center>\r\n</body>\r\n</html>\r\n";
        assert_eq!(page(404).map(|page| &page[..]), Some(text.as_bytes()));
        for without in [0, 200, 299, 304, 306, 499, 512, u16::MAX] {
            assert_eq!(page(without), None, "{without}");
        }
    }
}
