//! Sockets from a component: what a header names is connected to, with TLS if it asks for it.

use std::time::Duration;

use phasor_plugin::cosocket::{self, SocketError, Stream, Tls};
use phasor_plugin::{Answer, Request, task};

fn header(request: &Request, name: &str) -> String {
    let value = request.header(name).unwrap_or_default();
    String::from_utf8_lossy(&value).into_owned()
}

#[phasor_plugin::content]
async fn content(request: &Request) -> Answer {
    let port = header(request, "x-port").parse().unwrap_or_default();
    let uri = request.uri();
    let result = match uri.as_str() {
        "/tls" => tls(port, &header(request, "x-name")).await,
        "/reads" => reads(port).await,
        "/both" => both(port).await,
        "/udp" => udp(port).await,
        _ => Ok("what?".to_owned()),
    };
    Answer::text(result.unwrap_or_else(|error| format!("{error:?}")))
}

async fn ask(stream: &mut Stream) -> Result<String, SocketError> {
    stream.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    let head = stream.until(b"\r\n\r\n").await?;
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .and_then(|length| length.parse().ok())
        .unwrap_or_default();
    let body = stream.exactly(length).await?;
    Ok(String::from_utf8_lossy(&body).trim_end().to_owned())
}

async fn tls(port: u16, name: &str) -> Result<String, SocketError> {
    let connect = cosocket::connect("127.0.0.1", port).pool("tls");
    let mut stream = connect.send().await?;
    stream.handshake(&Tls::to(name), None).await?;
    let first = ask(&mut stream).await?;
    stream.keep_alive(Some(Duration::from_secs(10)))?;
    let mut again = connect.send().await?;
    let second = ask(&mut again).await?;
    let session = again.session();
    let mut resumed = cosocket::connect("127.0.0.1", port)
        .pool("other")
        .send()
        .await?;
    resumed.handshake(&Tls::to(name), session.as_ref()).await?;
    Ok(format!(
        "{first}; {} {second}; {}",
        again.reused(),
        ask(&mut resumed).await?
    ))
}

/// A server that sends `one\r\ntwo--end--rest` and closes.
async fn reads(port: u16) -> Result<String, SocketError> {
    let mut stream = cosocket::connect("127.0.0.1", port).send().await?;
    let line = stream.line().await?;
    let part = stream.until(b"--end--").await?;
    let letter = stream.receive(1).await?;
    let rest = stream.all(100).await?;
    let end = stream.receive(1).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(format!(
        "{} {} {} {} {end:?}",
        text(&line),
        text(&part),
        text(&letter),
        text(&rest)
    ))
}

/// Two at once, and one that is given up.
async fn both(port: u16) -> Result<String, SocketError> {
    let connect = cosocket::connect("127.0.0.1", port).pool_size(5);
    let (one, two) = task::join(connect.send(), connect.send()).await;
    let (mut one, mut two) = (one?, two?);
    let (first, second) = task::join(ask(&mut one), ask(&mut two)).await;
    let late = task::deadline(Duration::from_millis(20), one.receive(1)).await;
    let again = ask(&mut one).await;
    Ok(format!("{} {} {late:?} {}", first?, second?, again?))
}

/// A peer that sends every datagram back but `-`.
async fn udp(port: u16) -> Result<String, SocketError> {
    let second = Duration::from_secs(5);
    let peer = cosocket::datagrams("127.0.0.1", port, Some("127.0.0.9")).await?;
    peer.send(b"hello")?;
    let back = peer.receive(100, second).await?;
    peer.send(b"cut off")?;
    let cut = peer.receive(3, second).await?;
    peer.send(b"-")?;
    let none = peer.receive(100, Duration::from_millis(20)).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(format!("{} {} {none:?}", text(&back), text(&cut)))
}
