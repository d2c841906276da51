//! A kept answer for one client: what it asks on condition, a range, the head only, or all.

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
};
use http::{HeaderMap, HeaderValue, Method};

use super::super::Engine;
use super::tell;
use crate::cache::{Cache, Options, Outcome};
use crate::exchange::tee::Share;
use crate::exchange::{self, Exchange};
use crate::http_cache::entry::{Answer, Body};
use crate::http_cache::{HttpCache, conditions, piece_key};
use crate::response::files::Piece;
use crate::response::files::decide::pieces;
use crate::response::files::range::{Asked, parse};
use crate::time_cache;

/// The bytes of a piece of a long body.
pub(super) const PIECE: u64 = 256 << 10;

/// What a client gets of an answer.
enum View {
    Whole,
    NotModified,
    Parts(u16, HeaderMap, Vec<Piece>),
    /// It has nothing of that.
    Outside,
}

fn view(x: &Exchange, answer: &Answer, ranges: bool) -> View {
    let request = &x.request.headers;
    if answer.status != 200 {
        return View::Whole;
    }
    if conditions::is_not_modified(request, &answer.headers) {
        return View::NotModified;
    }
    let range = conditions::range(request, &answer.headers)
        .filter(|_| ranges && x.request.method == Method::GET);
    let Some(range) = range else {
        return View::Whole;
    };
    let size = answer.body.length();
    let asked = parse(range.as_bytes(), size);
    if asked == Asked::Whole {
        return View::Whole;
    }
    let of = answer.headers.get(CONTENT_TYPE);
    let content_type = of.and_then(|of| of.to_str().ok()).unwrap_or("");
    let mut headers = HeaderMap::new();
    match pieces(asked, &mut headers, size, content_type) {
        Some((status, pieces)) => {
            if content_type.is_empty() {
                headers.remove(CONTENT_TYPE);
            }
            View::Parts(status, headers, pieces)
        }
        None => View::Outside,
    }
}

/// The bytes of a body between two places, as views of what is kept; `None` when a part is gone.
async fn load(cache: &Cache, body: &Body, from: u64, to: u64, out: &mut Vec<Bytes>) -> Option<()> {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    match body {
        Body::Here(bytes) => out.push(bytes.slice(place(from)..place(to))),
        Body::Pieces { id, .. } => {
            let mut at = from;
            while at < to {
                let number = at / PIECE;
                let key = piece_key(*id, u32::try_from(number).ok()?);
                let found = match cache.hit(&key) {
                    Some(found) => found,
                    None => match cache.get(&key, Options::default(), false).await {
                        Ok(Outcome::Hit(found)) => found,
                        _ => return None,
                    },
                };
                let piece = found.value?;
                let start = number * PIECE;
                let end = to.min(start + PIECE);
                if (piece.len() as u64) < end - start {
                    return None;
                }
                out.push(piece.slice(place(at - start)..place(end - start)));
                at = end;
            }
        }
    }
    Some(())
}

/// Puts a kept head into the answer's; what earlier phases have set of other names stays.
fn put_head(x: &mut Exchange, answer: &Answer) {
    x.response.status = answer.status;
    for name in answer.headers.keys() {
        x.response.headers.remove(name);
    }
    for (name, value) in &answer.headers {
        x.response.headers.append(name, value.clone());
    }
    let age = answer.times.age_at(time_cache::clock_ms());
    x.response.headers.insert(AGE, HeaderValue::from(age));
}

impl Engine {
    /// Makes a kept answer this exchange's; false when its body is not whole any more. `instead`:
    /// content is at work, and what it writes is for nobody.
    pub(super) async fn serve(
        &mut self,
        http: &HttpCache,
        answer: &Answer,
        status: &'static str,
        instead: bool,
    ) -> bool {
        let ranges = self.plan.body_filters.is_empty();
        let (view, head) = exchange::with(self.id, |x| {
            let head = x.request.method == Method::HEAD || x.output.left;
            (view(x, answer, ranges), head)
        });
        let mut body = Vec::new();
        let cache = &http.cache;
        let whole = answer.body.length();
        let loaded = match &view {
            _ if head => Some(()),
            View::NotModified | View::Outside => Some(()),
            View::Whole => load(cache, &answer.body, 0, whole, &mut body).await,
            View::Parts(_, _, pieces) => {
                let mut loaded = Some(());
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => body.push(text.clone()),
                        Piece::Range { start, length } if loaded.is_some() => {
                            let end = start + length;
                            loaded = load(cache, &answer.body, *start, end, &mut body).await;
                        }
                        Piece::Range { .. } => {}
                    }
                }
                loaded
            }
        };
        if loaded.is_none() {
            return false;
        }
        exchange::with(self.id, |x| {
            put_head(x, answer);
            tell(x, http, status);
            describe(x, view, whole, &body);
            x.output.reset();
            if instead {
                x.output.split(None, Share::Nothing);
                for bytes in body {
                    x.output.instead(bytes);
                }
                return;
            }
            for bytes in body {
                x.output.push(bytes);
            }
            x.output.end();
            x.output.whole = true;
        });
        true
    }
}

/// The status and the headers that say what the client gets.
fn describe(x: &mut Exchange, view: View, whole: u64, body: &[Bytes]) {
    let headers = &mut x.response.headers;
    match view {
        View::Whole if x.response.status == 204 => {}
        View::Whole => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(whole));
        }
        View::NotModified => {
            x.response.status = 304;
            for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING] {
                headers.remove(name);
            }
        }
        View::Parts(status, more, _) => {
            x.response.status = status;
            let length: usize = body.iter().map(Bytes::len).sum();
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            for (name, value) in &more {
                headers.insert(name, value.clone());
            }
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        View::Outside => {
            x.response.status = 416;
            headers.remove(CONTENT_TYPE);
            headers.insert(CONTENT_LENGTH, HeaderValue::from(0_u16));
            if let Ok(range) = HeaderValue::from_str(&format!("bytes */{whole}")) {
                headers.insert(CONTENT_RANGE, range);
            }
        }
    }
}
