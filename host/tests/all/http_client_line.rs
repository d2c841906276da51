//! The bound on connections to one origin: requests wait in line, an answer keeps its connection.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;

use crate::http_client::{server, url, wicked};
use crate::process::pause;
use crate::redis::post;

/// Says which path it was asked for, after a while, and notes the order and how many ask at once.
fn slow_origin() -> (u16, Arc<Mutex<Vec<String>>>, Arc<AtomicUsize>) {
    let (order, most) = (
        Arc::<Mutex<Vec<String>>>::default(),
        Arc::new(AtomicUsize::new(0)),
    );
    let (seen, highest, now) = (order.clone(), most.clone(), AtomicUsize::new(0));
    let (port, _) = wicked(move |mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
            head.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
        highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        seen.lock().unwrap().push(path);
        pause(Duration::from_millis(30));
        now.fetch_sub(1, Ordering::SeqCst);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone")
            .ok();
    });
    (port, order, most)
}

#[test]
fn connections_to_an_origin_are_bounded_and_waited_for_in_line() {
    let six = |url: &str| {
        format!(
            "local threads, said = {{}}, {{}} \
             for i = 1, 6 do threads[i] = ngx.thread.spawn(http.fetch, '{url}' .. i) end \
             for i = 1, 6 do \
               local _, r, e = ngx.thread.wait(threads[i]) said[i] = r and r.body or e \
             end \
             return table.concat(said, ' ')"
        )
    };
    for (bound, connections) in [("connections = 1", 1), ("connections = 2", 2), ("", 6)] {
        let (port, order, most) = slow_origin();
        let server = server(&format!("[http_client]\n{bound}"), "");
        assert_eq!(post(&server, &six(&url(port))), ["done"; 6].join(" "));
        let most = most.load(Ordering::SeqCst);
        assert!(most <= connections, "{most} at once with `{bound}`");
        let order = order.lock().unwrap().clone();
        match connections {
            1 => assert_eq!(order, ["/1", "/2", "/3", "/4", "/5", "/6"]),
            _ => assert_eq!(order.len(), 6),
        }
    }
    // An answer that is read as it comes keeps its connection; who waits keeps its time-out.
    let (port, ..) = slow_origin();
    let server = server("[http_client]\nconnections = 1", "");
    let lua = format!(
        "local u = '{}' \
         local r = http.open(u .. 'open') \
         local _, e = http.fetch(u .. 'late', {{ timeout = 100 }}) \
         r:close() \
         local again = http.fetch(u .. 'again') \
         local opened = http.open(u .. 'read') \
         local body = opened:read_all() \
         return e .. ' ' .. again.body .. ' ' .. body .. ' ' .. http.fetch(u .. 'last').body",
        url(port)
    );
    assert_eq!(post(&server, &lua), "timeout done done done");
    server.stop(Signal::QUIT);
}
