//! A connection that leaves HTTP: by an upgrade, without a head, or its body only; the path says what.

use phasor_plugin::{Request, Verdict, downstream, task};

async fn echo() -> Verdict {
    let Ok(client) = downstream::upgrade("lines", &[("x-mine", b"1")]).await else {
        return Verdict::Exit(426);
    };
    // Both ways at once: what is sent first does not wait for what is received.
    let (sent, first) = task::join(client.send(b"ready\n"), client.receive(4096)).await;
    if sent.is_err() {
        return Verdict::Done;
    }
    let mut next = first;
    while let Ok(bytes) = next {
        if client.send(&bytes).await.is_err() {
            break;
        }
        next = client.receive(4096).await;
    }
    let twice = downstream::take().await;
    let _said = client
        .send(format!("end: {:?}\n", twice.err()).as_bytes())
        .await;
    Verdict::Done
}

/// Works for a while for whatever it receives, and for `loop` without end.
async fn burn() -> Verdict {
    let Ok(client) = downstream::upgrade("lines", &[]).await else {
        return Verdict::Exit(426);
    };
    while let Ok(bytes) = client.receive(4096).await {
        let turns = if bytes == b"loop" {
            u64::MAX
        } else {
            10_000_000
        };
        let mut sum = 0_u64;
        for turn in 0..turns {
            sum = core::hint::black_box(sum.wrapping_mul(31).wrapping_add(turn));
        }
        if client.send(&bytes).await.is_err() {
            break;
        }
    }
    Verdict::Done
}

async fn headless() -> Verdict {
    let Ok(client) = downstream::take().await else {
        return Verdict::Exit(500);
    };
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let _said = client.send(answer).await;
    Verdict::Done
}

async fn body() -> Verdict {
    let Ok(body) = downstream::body() else {
        return Verdict::Exit(411);
    };
    let mut count = 0;
    while let Ok(bytes) = body.receive(3).await {
        assert!(bytes.len() <= 3, "more than was asked for");
        count += bytes.len();
    }
    // A body of so many bytes is no error.
    Verdict::Exit(if count == 12 { 204 } else { 400 })
}

#[phasor_plugin::content]
async fn content(request: &Request) -> Verdict {
    match request.path().as_str() {
        "/echo" => echo().await,
        "/burn" => burn().await,
        "/headless" => headless().await,
        _ => body().await,
    }
}
