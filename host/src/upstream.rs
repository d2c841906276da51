//! Who is asked for an answer in place of this server: today one peer, named by its URL.

pub mod proxy;

use std::time::Duration;

use http::uri::{Authority, Scheme};

use crate::http_client::Settings;

/// `proxy` of a route, ready to be asked.
#[derive(Debug)]
pub struct Proxy {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and port.
    pub authority: Authority,
    /// The path that takes the place of `prefix`; `None` passes the path on as it came.
    pub base: Option<String>,
    /// What the route matched: `/api/` of `/api/*`.
    pub prefix: String,
    /// The longest pause between two writes of the request.
    pub send_timeout: Duration,
    /// The longest pause between two reads of the answer.
    pub read_timeout: Duration,
    /// The pool.
    pub client: Settings,
}
