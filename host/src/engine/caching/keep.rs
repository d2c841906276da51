//! Keeps an answer while its client gets it: the body goes two ways, and a task of the worker gathers
//! what is kept. When the body breaks off nothing is kept, and the next in line brings the answer.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method};

use super::super::Engine;
use super::serve::PIECE;
use super::settle::{Made, headless, kept, times};
use super::{Caching, tell};
use crate::cache::{CacheError, Options, Outcome, Ticket};
use crate::exchange::tee::{self, Piece, Share, TeeReader};
use crate::exchange::{self, Exchange};
use crate::http_cache::entry::{Answer, Body, Stored, Vary};
use crate::http_cache::policy::Lifetime;
use crate::http_cache::vary::{self, Says};
use crate::http_cache::{HttpCache, conditions, piece_key, variant_key};
use crate::response::files::decide;
use crate::response::files::range::{Asked, parse};
use crate::time_cache;

/// Pieces outlive their head by this, so that a head that is found has its body.
const MARGIN: u64 = 60_000;

/// Where an answer goes.
enum Place {
    /// Under the key of its flight, or of its URI.
    Here(Vec<u8>),
    /// Beside others of its URI, which are listed already.
    Listed(Vec<u8>, Vary, u64),
    /// Beside others of its URI, by a list that begins now.
    Begun(Vec<u8>, Vary),
}

struct Keeping {
    http: Arc<HttpCache>,
    uri: Vec<u8>,
    place: Place,
    ticket: Option<Ticket>,
    answer: Answer,
    /// The body's length as the head says it.
    announced: Option<u64>,
}

/// A number that no other has.
fn random() -> u64 {
    thread_local!(static STATE: RandomState = RandomState::new());
    STATE.with(|state| state.hash_one((std::thread::current().id(), time_cache::monotonic())))
}

fn place(caching: &mut Caching, made: &Made, request: &HeaderMap) -> Option<Place> {
    let ignored = caching.http.rules.ignore.iter().any(|own| own == "vary");
    let names = match vary::says(&made.headers) {
        Says::Names(names) if !ignored => names,
        Says::Nothing | Says::Any | Says::Names(_) => {
            return Some(Place::Here(caching.place().to_vec()));
        }
    };
    if let Some(variant) = caching.variant.take_if(|own| own.vary.names == names) {
        let number = vary::number(&variant.values);
        return Some(Place::Listed(variant.key, variant.vary, number));
    }
    let values = vary::values(&names, request)?;
    let list = Vary {
        id: random(),
        names,
        known: vec![vary::number(&values)],
    };
    Some(Place::Begun(
        variant_key(&caching.key, &list, &values),
        list,
    ))
}

impl Engine {
    /// Sends the body two ways, and begins to keep it.
    pub(super) async fn keep(&mut self, mut caching: Box<Caching>, made: Made, life: Lifetime) {
        let http = caching.http.clone();
        let place = exchange::with(self.id, |x| place(&mut caching, &made, &x.request.headers));
        let Some(place) = place else {
            self.release(&mut caching, made.status).await;
            self.pass_through(&caching);
            return;
        };
        let now = time_cache::clock_ms();
        let length = made.headers.get(CONTENT_LENGTH);
        let announced = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let (writer, reader) = tee::tee();
        let ranges = self.plan.body_filters.is_empty();
        exchange::with(self.id, |x| {
            tell(x, &http, caching.status);
            let share = share(x, &caching, &made, ranges);
            x.output.split(Some(writer), share);
        });
        let mut ticket = caching.ticket.take();
        if matches!(&place, Place::Begun(..))
            && caching.variant.is_some()
            && let Some(mut ticket) = ticket.take()
        {
            // It stands in another place now: those who wait for it in the old one look again.
            let _told = http.cache.pass(&mut ticket, Some(&Stored::pass())).is_ok();
        }
        let keeping = Keeping {
            uri: std::mem::take(&mut caching.key),
            place,
            ticket,
            answer: Answer {
                status: made.status,
                public: life.public,
                times: times(caching.begun, now, life),
                headers: kept(&http, &made.headers, now),
                tags: http.tags(&made.headers),
                body: Body::Here(Bytes::new()),
            },
            http,
            announced,
        };
        tokio::task::spawn_local(keeping.run(reader));
    }
}

/// What the client gets of the body, and the head that says so.
fn share(x: &mut Exchange, caching: &Caching, made: &Made, ranges: bool) -> Share {
    if caching.head {
        x.request.method = Method::HEAD;
    }
    if caching.background || x.output.left {
        return Share::Nothing;
    }
    if made.status == 200 && conditions::is_not_modified(&x.request.headers, &made.headers) {
        x.response.status = 304;
        x.response.headers.remove(CONTENT_LENGTH);
        x.response.headers.remove(CONTENT_TYPE);
        return Share::Nothing;
    }
    if caching.head {
        headless(x);
        return Share::Nothing;
    }
    if !ranges || made.status != 200 {
        return Share::Whole;
    }
    let size = match made.headers.get(CONTENT_LENGTH) {
        Some(length) => length.to_str().ok().and_then(|length| length.parse().ok()),
        None => x.output.ended.then_some(x.output.queued() as u64),
    };
    let range = conditions::range(&x.request.headers, &made.headers);
    let (Some(range), Some(size)) = (range, size) else {
        return Share::Whole;
    };
    // Several parts of what is still to come are answered with the whole.
    let Asked::Parts(parts) = parse(range.as_bytes(), size) else {
        return Share::Whole;
    };
    let [part] = parts.as_slice() else {
        return Share::Whole;
    };
    let value = HeaderValue::from_str(&decide::content_range(*part, size));
    let Ok(value) = value else {
        return Share::Whole;
    };
    x.response.status = 206;
    x.response.headers.insert(CONTENT_RANGE, value);
    let length = HeaderValue::from(part.length);
    x.response.headers.insert(CONTENT_LENGTH, length);
    x.output.whole = false;
    Share::Range {
        skip: part.start,
        left: part.length,
    }
}

impl Keeping {
    async fn run(mut self, mut reader: TeeReader) {
        let limit = self.http.rules.body_limit;
        let mut rest = BytesMut::new();
        let (id, mut count, mut length) = (random(), 0_u32, 0_u64);
        let mut renewed = tokio::time::Instant::now();
        loop {
            match reader.next().await {
                Piece::Bytes(bytes) => {
                    length += bytes.len() as u64;
                    if length > limit {
                        self.give_up(id, count).await;
                        return;
                    }
                    rest.extend_from_slice(&bytes);
                    while rest.len() as u64 > PIECE {
                        let piece = rest.split_to(usize::try_from(PIECE).unwrap_or(usize::MAX));
                        self.store_piece(id, count, piece.freeze()).await;
                        count += 1;
                    }
                    if renewed.elapsed() > self.http.cache.lease() / 4
                        && let Some(ticket) = &mut self.ticket
                    {
                        renewed = tokio::time::Instant::now();
                        let _mine = self.http.cache.renew(ticket);
                    }
                }
                Piece::End => break,
                Piece::Cut => {
                    self.forget_pieces(id, count).await;
                    return;
                }
            }
        }
        if self.announced.is_some_and(|announced| announced != length) {
            self.forget_pieces(id, count).await;
            return;
        }
        self.answer.body = if count == 0 {
            Body::Here(rest.freeze())
        } else {
            self.store_piece(id, count, rest.freeze()).await;
            Body::Pieces {
                id,
                count: count + 1,
                length,
            }
        };
        self.store().await;
    }

    /// How long it is kept from now on.
    fn left(&self) -> u64 {
        let keep = self.answer.times.keep();
        keep.saturating_sub(time_cache::clock_ms()).max(1)
    }

    async fn store_piece(&self, id: u64, number: u32, bytes: Bytes) {
        let left = pieces_left(self.left());
        // What does not fit is missed when the answer is looked for, and brought anew.
        let _kept = self.http.set(&piece_key(id, number), bytes, left).await;
    }

    async fn forget_pieces(&self, id: u64, count: u32) {
        for number in 0..count {
            let _gone = self.http.delete(&piece_key(id, number)).await;
        }
    }

    /// Longer than what is kept: nobody waits for it any more.
    async fn give_up(&mut self, id: u64, count: u32) {
        self.forget_pieces(id, count).await;
        if let Some(mut ticket) = self.ticket.take() {
            let time = self.http.uncacheable();
            let told = self.http.fill(&mut ticket, Stored::pass(), time).await;
            // A flight that is lost has nobody who waits.
            let _told = told.is_ok();
        }
    }

    async fn store(mut self) {
        let bytes = self.answer.encode();
        let left = self.left();
        match std::mem::replace(&mut self.place, Place::Here(Vec::new())) {
            Place::Here(key) => self.put(&key, bytes, left).await,
            Place::Begun(key, list) => {
                if self.http.set(&key, bytes, left).await {
                    let uri = std::mem::take(&mut self.uri);
                    self.put(&uri, list.encode(), left).await;
                }
            }
            Place::Listed(key, list, number) => {
                if list_variant(&self.http, &self.uri, &list, number, left).await {
                    self.put(&key, bytes, left).await;
                }
            }
        }
    }

    async fn put(&mut self, key: &[u8], bytes: Bytes, left: u64) {
        let _kept = match &mut self.ticket {
            Some(ticket) => self.http.fill(ticket, bytes, left).await.is_ok(),
            None => self.http.set(key, bytes, left).await,
        };
    }
}

/// How long pieces are kept of what is kept so long.
fn pieces_left(left: u64) -> u64 {
    left.saturating_mul(2).saturating_add(MARGIN)
}

/// Notes that this answer is there among those of its URI; false when their list is gone: a purge.
async fn list_variant(http: &HttpCache, uri: &[u8], list: &Vary, number: u64, left: u64) -> bool {
    let cache = &http.cache;
    for _ in 0..3 {
        // Who has the list's flight is the only one who changes it.
        let Ok(Outcome::Miss(mut ticket)) = cache.get(uri, Options::default(), true).await else {
            continue;
        };
        let Some(found) = cache.peek(uri, false) else {
            return false;
        };
        let remaining = found
            .remaining
            .map_or(u64::MAX, |left| u64::try_from(left).unwrap_or(0));
        let Some(Stored::Vary(mut own)) = found.value.and_then(Stored::decode) else {
            return false;
        };
        if own.id != list.id {
            return false;
        }
        if !own.known.contains(&number) {
            own.known.push(number);
        }
        let more = own.known.len().saturating_sub(http.rules.variants);
        own.known.drain(..more);
        let left = left.max(remaining);
        match http.fill(&mut ticket, own.encode(), left).await {
            Err(CacheError::Lost) => {}
            stored => return stored.is_ok(),
        }
    }
    false
}

/// The pieces of a body are kept as long as its head.
pub(super) async fn prolong(http: &HttpCache, body: &Body, left: u64) {
    let Body::Pieces { id, count, .. } = body else {
        return;
    };
    let cache = &http.cache;
    let short = |number: &u32| {
        let found = cache.peek(&piece_key(*id, *number), false);
        let left_ = i64::try_from(left).unwrap_or(i64::MAX);
        found.is_none_or(|found| found.remaining.is_some_and(|own| own < left_))
    };
    if !(0..*count).any(|number| short(&number)) {
        return;
    }
    for number in 0..*count {
        let key = piece_key(*id, number);
        let found = cache.peek(&key, false).and_then(|found| found.value);
        if let Some(bytes) = found {
            let _kept = http.set(&key, bytes, pieces_left(left)).await;
        }
    }
}
