//! Records cross as `docs/reactor.md` lays them out: its example, byte for byte, and what a broken
//! guest may send.

use std::rc::Rc;

use super::{Call, create, record, remove, run, take, with};
use crate::exchange::{self, ConnectionInfo, Outcome, Request, RequestBody};

fn exchange_for(uri: &str) -> exchange::ExchangeId {
    let mut request = Request::default();
    request.set_target(uri).unwrap();
    let address = "127.0.0.1:1".parse().unwrap();
    let connection = Rc::new(ConnectionInfo {
        remote: address,
        local: address,
        serial: 1,
    });
    exchange::begin(|x| {
        x.request = request;
        x.body = RequestBody::new(None);
        x.connection = Some(connection);
    })
}

/// Has a reactor run the first segment.
fn begin(reactor: super::ReactorId, job: exchange::ExchangeId) {
    let call = Call {
        segment: 0,
        from: 0,
    };
    run(reactor, job, call, false);
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

#[test]
fn the_example_of_the_document_holds() {
    let document = include_str!("../../../docs/reactor.md");
    let example = document.split("## Example").nth(1).unwrap();
    let blocks: Vec<_> = example.split("```").collect();
    let (reactor, job) = (create(), exchange_for("/hello"));
    let call = Call {
        segment: 0,
        from: 0,
    };
    run(reactor, job, call, true);
    let mut expected = bytes(blocks[1]);
    expected[1..5].copy_from_slice(&job.to_le_bytes());
    assert_eq!(with(reactor, |r| r.inbox.clone()), expected);

    let mut answer = bytes(blocks[3]);
    answer[1..5].copy_from_slice(&job.to_le_bytes());
    take(reactor, &answer).unwrap();
    exchange::with(job, |x| {
        assert_eq!(x.outcome, Some(Outcome::Respond { filtered: false }));
        assert_eq!(x.response.status, 200);
        assert_eq!(x.response.headers["content-type"], "text/plain");
        assert_eq!(x.output.take_whole().unwrap(), "hello\n");
        assert!(x.output.ended && !x.handler_running);
        assert!(x.jobs.is_empty(), "the guest has forgotten the job");
    });
    exchange::end(job);
    remove(reactor);
}

#[test]
fn a_broken_batch_is_an_error_and_never_a_panic() {
    let (reactor, job) = (create(), exchange_for("/"));
    begin(reactor, job);
    let mut whole = Vec::new();
    record::chunk(&mut whole, job, 0, b"some bytes");
    whole[0] = 3;
    for cut in 1..whole.len() {
        assert!(take(reactor, &whole[..cut]).is_err(), "cut after {cut}");
    }
    assert!(take(reactor, &[99, 0, 0, 0, 0]).is_err());
    assert!(
        take(reactor, &[2, 0, 0, 0, 0, 0, 7, 0, 0, 0]).is_err(),
        "7 is no status"
    );
    exchange::end(job);
    remove(reactor);
}

#[test]
fn a_record_about_another_reactors_job_is_skipped() {
    let (mine, other, job) = (create(), create(), exchange_for("/"));
    begin(mine, job);
    let mut fail = vec![5];
    fail.extend_from_slice(&job.to_le_bytes());
    fail.extend_from_slice(&3_u32.to_le_bytes());
    fail.extend_from_slice(b"bad");
    take(other, &fail).unwrap();
    assert_eq!(exchange::with(job, |x| x.outcome.clone()), None);
    take(mine, &fail).unwrap();
    assert_eq!(
        exchange::with(job, |x| x.outcome.clone()),
        Some(Outcome::Fail("bad".to_owned()))
    );
    exchange::end(job);
    remove(mine);
    remove(other);
}

#[test]
fn a_lost_reactor_fails_its_jobs() {
    let (reactor, job) = (create(), exchange_for("/"));
    begin(reactor, job);
    remove(reactor);
    assert_eq!(
        exchange::with(job, |x| x.outcome.take()),
        Some(Outcome::Lost)
    );
    exchange::end(job);
}
