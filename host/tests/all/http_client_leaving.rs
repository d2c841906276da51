//! A client that goes away takes with it what its request asked of other servers: no socket is left.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::cosocket::{drain, server_with, sockets};
use crate::harness::Server;
use crate::redis::wait_until;

const CLIENTS: usize = 10;

/// Clients that ask so, and leave when the peer, which says nothing, has had four bytes for each of them:
/// the server closes the sockets that it has for them, `each` with the client's own.
pub(crate) fn clients_leave(server: &mut Server, listener: &TcpListener, ask: &str, each: usize) {
    let pid = server.process().id();
    let before = sockets(pid);
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::connect(server.port());
            client.send(ask);
            client
        })
        .collect();
    let mut peers: Vec<TcpStream> = (0..CLIENTS).map(|_| listener.accept().unwrap().0).collect();
    for peer in &mut peers {
        peer.read_exact(&mut [0; 4]).unwrap();
    }
    // Of the first request's connection it is not known whether it was counted.
    assert!(sockets(pid) + 1 >= before + each * CLIENTS);
    drop(clients);
    // The peers stay: it is the server that closes.
    for peer in peers {
        drain(peer);
    }
    wait_until(|| sockets(pid) <= before);
    assert!(!server.log_since(0).contains("went on"));
}

/// Clients that leave while this fetches.
fn leave(script: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let settings = format!("allow = {{ http = [\"http://127.0.0.1:{port}\"] }}");
    let script = format!("{script} ngx.log(ngx.WARN, 'went on')");
    let mut server = server_with(&settings, &script, port);
    assert_eq!(get(server.port(), "/none").status, 404);
    clients_leave(
        &mut server,
        &listener,
        "GET /t HTTP/1.1\r\nHost: x\r\n\r\n",
        2,
    );
    server.stop(Signal::QUIT);
}

#[test]
fn a_fetch_ends_with_its_client() {
    leave("require('phasor.http').fetch('http://127.0.0.1:PORT/')");
}

#[test]
fn a_fetch_beside_others_ends_with_its_client() {
    leave(
        "ngx.thread.spawn(function() require('phasor.http').fetch('http://127.0.0.1:PORT/') end) ngx.sleep(3600)",
    );
}

#[test]
fn a_request_of_resty_http_ends_with_its_client() {
    leave("require('resty.http').new():request_uri('http://127.0.0.1:PORT/')");
}
