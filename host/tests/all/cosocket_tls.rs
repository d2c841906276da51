//! TLS of `ngx.socket.tcp`, against nginx: a handshake, the certificates that are refused and what the
//! refusal is called, sessions, certificates of the client's own, and servers that speak no TLS.

use std::io::Write as _;
use std::process::Command;

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::{Folder, PHASOR, Server, free_port};
use crate::nginx::{Nginx, frame};
use crate::process::{have, run};
use crate::tls::Authority;

/// nginx with one port for each way in which a certificate can be.
pub(crate) struct Back {
    pub(crate) authority: Authority,
    pub(crate) good: u16,
    expired: u16,
    pub(crate) strict: u16,
    plain: u16,
    _nginx: Nginx,
}

const ANSWER: &str = r#"return 200 "$ssl_server_name $ssl_protocol $ssl_session_reused $ssl_client_verify $connection_requests\n";"#;

/// Starts it; `locations` stand beside `/` where the certificate is good.
pub(crate) fn back_with(locations: &str) -> Option<Back> {
    if !have("nginx") {
        return None;
    }
    let folder = Folder::new();
    let authority = Authority::new();
    let ca = authority.file(&folder);
    let good = authority.sign(&folder, "back.test");
    let expired = authority.expired(&folder, "back.test");
    let ports = [free_port(), free_port(), free_port(), free_port()];
    let server = |port: u16, certificate: &crate::tls::Certificate, more: &str| {
        format!(
            "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {}; ssl_certificate_key {};\n\
             {more}\nlocation / {{ {ANSWER} }} }}\n",
            certificate.chain.display(),
            certificate.key.display(),
        )
    };
    let strict = format!(
        "ssl_protocols TLSv1.3; ssl_verify_client on; ssl_client_certificate {};",
        ca.display()
    );
    let http = [
        server(
            ports[0],
            &good,
            &format!("ssl_protocols TLSv1.2 TLSv1.3;\n{locations}"),
        ),
        server(ports[1], &expired, ""),
        server(ports[2], &good, &strict),
    ]
    .concat();
    let text = frame(&http, ANSWER, ports[3]);
    Some(Back {
        authority,
        good: ports[0],
        expired: ports[1],
        strict: ports[2],
        plain: ports[3],
        _nginx: Nginx::start_with(folder, &text, ports[3]),
    })
}

fn back() -> Option<Back> {
    back_with("")
}

/// A server whose route runs the script; `GOOD` and the other words are ports.
fn start(back: &Back, settings: &str, script: &str) -> Server {
    let folder = Folder::new();
    back.authority.file(&folder);
    let client = back.authority.sign(&folder, "client.test");
    assert!(client.chain.exists() && client.key.exists());
    let mut script = format!("{ASK}\n{script}");
    for (word, port) in [
        ("GOOD", back.good),
        ("EXPIRED", back.expired),
        ("STRICT", back.strict),
        ("PLAIN", back.plain),
    ] {
        script = script.replace(word, &port.to_string());
    }
    folder.write("t.lua", script);
    let config = format!(
        r#"
[server]
workers = 1
[plugin.lua.cosocket]
{settings}
[plugin.lua]
limits = {{ cpu = "5s" }}
[[route]]
path = "/t"
lua.content = {{ file = "t.lua" }}
"#
    );
    Server::start_in(folder, &config)
}

const ASK: &str = r#"
local function open(port)
  local sock = ngx.socket.tcp()
  sock:settimeout(10000)
  assert(sock:connect("127.0.0.1", port, { pool = "tls" .. port }))
  return sock
end
local function ask(sock)
  assert(sock:send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
  local head = assert(sock:receiveuntil("\r\n\r\n"))()
  return (sock:receive(tonumber(head:match("Content%-Length: (%d+)"))):gsub("\n", "")), head:match("%d%d%d")
end
"#;

fn lines(server: &Server) -> String {
    let answer = get(server.port(), "/t");
    assert_eq!(answer.status, 200, "{}", server.log_since(0));
    answer.text()
}

#[test]
fn a_handshake_and_what_it_gives() {
    let Some(back) = back() else { return };
    let server = start(
        &back,
        r#"ca = "ca.pem""#,
        r#"
local sock = open(GOOD)
ngx.say(sock:sslhandshake(false, "back.test", true))
ngx.say(ask(sock))
ngx.say(sock:setkeepalive())
-- Out of the pool it speaks TLS already: nothing is done again.
sock = open(GOOD)
ngx.say(sock:getreusedtimes(), " ", type(sock:sslhandshake(nil, "back.test", true)))
ngx.say(ask(sock))
ngx.say(sock:close(), " ", sock:sslhandshake())
-- A session is resumed only by who brings it.
sock = open(GOOD)
local session = sock:sslhandshake(nil, "back.test", true)
ask(sock)
sock:close()
for _, with in ipairs { session, false } do
  sock = open(GOOD)
  sock:sslhandshake(with, "back.test", true)
  ngx.say(with ~= false, " ", (ask(sock)))
  sock:close()
end
-- Without a name none is sent or looked for.
sock = open(GOOD)
ngx.say(type(sock:sslhandshake(nil, nil, true)), " ", (ask(sock)))
ngx.say(type(sock:getsslsession()))
ngx.say(select(2, pcall(sock.sslhandshake, sock, 1, 2, 3, 4, 5)))
"#,
    );
    assert_eq!(
        lines(&server),
        "true\nback.test TLSv1.3 . NONE 1200\n1\n1 userdata\nback.test TLSv1.3 . NONE 2200\n\
         1 nilclosed\ntrue back.test TLSv1.3 r NONE 1\nfalse back.test TLSv1.3 . NONE 1\n\
         userdata  TLSv1.3 . NONE 1\nuserdata\n\
         ngx.socket sslhandshake: expecting 1 ~ 5 arguments (including the object), but seen 6\n"
    );
    server.stop(Signal::QUIT);
}

#[test]
fn certificates_that_are_refused() {
    let Some(back) = back() else { return };
    let script = r#"
local function try(port, name, verify)
  local sock = open(port)
  local ok, err = sock:sslhandshake(nil, name, verify)
  ngx.say(type(ok), " ", err, " ", (select(2, sock:send("x"))))
end
try(GOOD, "back.test", true)
try(GOOD, "other.test", true)
try(GOOD, "other.test", false)
try(EXPIRED, "back.test", true)
try(EXPIRED, "back.test")
try(PLAIN, "back.test", false)
try(GOOD, "not a name", false)
"#;
    let server = start(&back, r#"ca = "ca.pem""#, script);
    let mark = server.mark();
    assert_eq!(
        lines(&server),
        "userdata nil nil\nnil certificate host mismatch closed\nuserdata nil nil\n\
         nil 10: certificate has expired closed\nuserdata nil nil\nnil handshake failed closed\n\
         nil bad server name closed\n"
    );
    server.wait_log("TLS handshake failed: .*InvalidContentType", mark);
    server.stop(Signal::QUIT);
    // The public authorities do not know the tests' own.
    let server = start(&back, "", script);
    let text = lines(&server);
    let first = "nil 20: unable to get local issuer certificate closed\n";
    assert!(text.starts_with(first), "{text}");
    server.stop(Signal::QUIT);
}

#[test]
fn a_certificate_of_the_clients_own() {
    let Some(back) = back() else { return };
    let script = r#"
local sock = open(STRICT)
ngx.say(sock:sslhandshake(false, "back.test", true), " ", (ask(sock)))
"#;
    let configured = start(
        &back,
        "ca = \"ca.pem\"\ncertificate = \"client.test.pem\"\nkey = \"client.test.key\"",
        script,
    );
    assert_eq!(lines(&configured), "true back.test TLSv1.3 . SUCCESS 1\n");
    configured.stop(Signal::QUIT);
    let folder = Folder::new();
    let client = back.authority.sign(&folder, "client.test");
    let text = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    let script = format!(
        "local CERT, KEY, CA = [[{}]], [[{}]], [[{}]]\n{}",
        text(&client.chain),
        text(&client.key),
        text(&back.authority.file(&folder)),
        r#"
local ssl = require "ngx.ssl"
local sock = open(STRICT)
ngx.say(sock:settrustedstore(ssl.parse_pem_cert(CA)))
ngx.say(sock:sslhandshake(false, "back.test", true), " ", select(2, ask(sock)))
sock:close()
for _, pair in ipairs {
  { ssl.parse_pem_cert(CERT), ssl.parse_pem_priv_key(KEY) },
  { ssl.parse_der_cert(ssl.cert_pem_to_der(CERT)), ssl.parse_der_priv_key(ssl.priv_key_pem_to_der(KEY)) },
} do
  sock = open(STRICT)
  sock:settrustedstore(CA)
  ngx.say(sock:setclientcert(pair[1], pair[2]))
  ngx.say(sock:sslhandshake(false, "back.test", true), " ", (ask(sock)))
  sock:close()
end
ngx.say(sock:setclientcert(CERT))
ngx.say(sock:setclientcert(1, KEY))
ngx.say(ssl.parse_pem_cert("nothing"))
ngx.say(sock:setclientcert(nil, nil))
sock = open(STRICT)
sock:setclientcert(CERT, "no key")
ngx.say(sock:sslhandshake(false, "back.test", false))
"#
    );
    let own = start(&back, "", &script);
    assert_eq!(
        lines(&own),
        "true\ntrue 400\n\
         true\ntrue back.test TLSv1.3 . SUCCESS 1\ntrue\ntrue back.test TLSv1.3 . SUCCESS 1\n\
         nilclient certificate must be supplied with corresponding private key\n\
         nilbad cert arg: certificate expected, got number\n\
         nilPEM_read_bio_X509_AUX() failed: no CERTIFICATE in it\ntrue\nnilkey: no items found\n"
    );
    own.stop(Signal::QUIT);
}

/// Asks a component, which connects to this port and expects this name there.
pub(crate) fn ask(server: &Server, path: &str, port: u16, name: &str) -> String {
    let mut client = Client::connect(server.port());
    client.send(format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nX-Port: {port}\r\nX-Name: {name}\r\n\r\n"
    ));
    client.response(false).unwrap().text()
}

#[test]
fn from_a_component() {
    let Some(back) = back() else { return };
    let folder = Folder::new();
    back.authority.file(&folder);
    let config = r#"
[server]
workers = 1
[plugin.sockets]
component = "{guests}/sockets.wasm"
allow = { connect = ["127.0.0.1:*"] }
cosocket = { ca = "ca.pem" }
[[route]]
path = "/*"
content = "sockets"
"#;
    let server = Server::start_in(folder, config);
    let ask = |path: &str, port: u16, name: &str| ask(&server, path, port, name);
    assert_eq!(
        ask("/tls", back.good, "back.test"),
        "back.test TLSv1.3 . NONE 1; 1 back.test TLSv1.3 . NONE 2; back.test TLSv1.3 r NONE 1"
    );
    assert_eq!(
        ask("/tls", back.good, "other.test"),
        r#"SocketError::Other("certificate host mismatch")"#
    );
    assert_eq!(
        ask("/both", back.plain, ""),
        "    1     1 Err(Elapsed)     2"
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"one\r\ntwo--end--rest").unwrap();
    });
    assert_eq!(
        ask("/reads", port, ""),
        "one two r est Err(SocketError::Closed)"
    );
    peer.join().unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    let peer = std::thread::spawn(move || {
        let mut bytes = [0; 100];
        loop {
            let (n, from) = udp.recv_from(&mut bytes).unwrap();
            assert_eq!(from.ip().to_string(), "127.0.0.9");
            if &bytes[..n] == b"-" {
                return;
            }
            udp.send_to(&bytes[..n], from).unwrap();
        }
    });
    assert_eq!(ask("/udp", port, ""), "hello cut Err(SocketError::Timeout)");
    peer.join().unwrap();
    server.stop(Signal::QUIT);
}

#[test]
fn files_that_are_wrong() {
    let folder = Folder::new();
    folder.write("ca.pem", "no certificate");
    let file = folder.write(
        "phasor.toml",
        "[plugin.lua.cosocket]\nca = \"ca.pem\"\n[[route]]\npath = \"/\"\nlua.content = \"ngx.say(1)\"\n",
    );
    let (code, _, err) = run(Command::new(PHASOR).arg("check").arg(&file));
    assert_eq!(code, 78, "{err}");
    assert!(
        err.contains("cosocket: ca: there is no PEM certificate in it"),
        "{err}"
    );
    folder.write(
        "phasor.toml",
        "[plugin.lua.cosocket]\ncertificate = \"ca.pem\"\n[[route]]\npath = \"/\"\nlua.content = \"ngx.say(1)\"\n",
    );
    let (code, _, err) = run(Command::new(PHASOR).arg("check").arg(&file));
    assert_eq!(code, 78, "{err}");
    assert!(
        err.contains("`certificate` and `key` of `cosocket` belong together"),
        "{err}"
    );
}
