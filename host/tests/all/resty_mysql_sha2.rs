//! `resty.mysql` and `caching_sha2_password`, which MariaDB does not have: against a server of the
//! test's own that says what MySQL says up to the login, and answers every query with OK.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::harness::Folder;
use crate::resty::{check, check_in};
use crate::tls::Authority;

const NONCE: &[u8; 20] = b"abcdefghijklmnopqrst";
/// SHA256(password) XOR SHA256(SHA256(SHA256(password)) + nonce), of `secret`.
const TOKEN: &str = "c76e2898612a4cf042c77fa8c4702c4c64c0c2c557c53c4d75595aaa6abae809";
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];

fn read(stream: &mut impl Read) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).ok()?;
    let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], payload))
}

fn write(stream: &mut impl Write, number: u8, payload: &[u8]) {
    let mut packet = u32::try_from(payload.len()).unwrap().to_le_bytes()[..3].to_vec();
    packet.push(number);
    packet.extend_from_slice(payload);
    stream.write_all(&packet).unwrap();
}

fn greeting(plugin: &str, tls: bool) -> Vec<u8> {
    let mut packet = b"\x0a8.4.0\0\x01\0\0\0".to_vec();
    packet.extend_from_slice(&NONCE[..8]);
    // Everything, perhaps but TLS.
    packet.extend_from_slice(&[
        0,
        0xff,
        if tls { 0xff } else { 0xf7 },
        33,
        2,
        0,
        0xff,
        0x81,
        21,
    ]);
    packet.extend_from_slice(&[0; 10]);
    packet.extend_from_slice(&NONCE[8..]);
    packet.push(0);
    packet.extend_from_slice(plugin.as_bytes());
    packet.push(0);
    packet
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One client: greets with a plugin, perhaps switches to another, and answers the token with `said`.
fn serve(listener: &TcpListener, switch: bool, said: u8) {
    let (mut stream, _) = listener.accept().unwrap();
    let plugin = if switch {
        "mysql_native_password"
    } else {
        "caching_sha2_password"
    };
    write(&mut stream, 0, &greeting(plugin, false));
    let (mut number, login) = read(&mut stream).unwrap();
    let mut token = if switch {
        write(
            &mut stream,
            number + 1,
            &[b"\xfecaching_sha2_password\0", &NONCE[..], b"\0"].concat(),
        );
        let (next, answer) = read(&mut stream).unwrap();
        number = next;
        hex(&answer)
    } else {
        hex(&login)
    };
    if !token.contains(TOKEN) {
        token.insert_str(0, "wrong token: ");
        write(
            &mut stream,
            number + 1,
            &[b"\xff\x15\x04#28000", token.as_bytes()].concat(),
        );
        return;
    }
    write(&mut stream, number + 1, &[1, said]);
    if said == 3 {
        write(&mut stream, number + 2, OK);
    }
    while let Some((number, query)) = read(&mut stream) {
        if query.first() == Some(&1) {
            return;
        }
        write(&mut stream, number + 1, OK);
    }
}

const SCRIPT: &str = r#"
local show = require "show"
local mysql = require "resty.mysql"
local options = { host = "127.0.0.1", port = PORT, user = "joe", password = "secret" }
for _ = 1, 2 do
  local db = mysql:new()
  db:set_timeout(5000)
  show(db:connect(options))
  show(db:server_ver(), db:query("select 1").affected_rows)
  show(db:close())
end
show(mysql:new():connect(options))
options.password = "other"
show((select(2, mysql:new():connect(options)):match("^wrong token")))
"#;

#[test]
fn logins() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        serve(&listener, false, 3);
        serve(&listener, true, 3);
        serve(&listener, false, 4);
        serve(&listener, false, 3);
    });
    check(
        SCRIPT,
        &[("PORT", port.to_string())],
        r"
1
8.4.0 0
1
1
8.4.0 0
1
nil caching_sha2_password needs ssl = true or a unix socket for a user's first login nil nil
wrong token
",
    );
    server.join().unwrap();
}

/// One client that asks for TLS; its password comes in it as it is, because this server does not
/// remember it.
fn serve_secured(listener: &TcpListener, config: Arc<rustls::ServerConfig>) {
    let (mut stream, _) = listener.accept().unwrap();
    write(&mut stream, 0, &greeting("caching_sha2_password", true));
    let (_, request) = read(&mut stream).unwrap();
    assert_eq!(request.len(), 32, "what asks for TLS is no login");
    let connection = rustls::ServerConnection::new(config).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, stream);
    let (number, login) = read(&mut stream).unwrap();
    assert!(hex(&login).contains(TOKEN));
    write(&mut stream, number + 1, &[1, 4]);
    let (number, password) = read(&mut stream).unwrap();
    assert_eq!(password, b"secret\0");
    write(&mut stream, number + 1, OK);
    while let Some((number, query)) = read(&mut stream) {
        if query.first() == Some(&1) {
            return;
        }
        write(&mut stream, number + 1, OK);
    }
}

#[test]
fn a_first_login_over_tls() {
    let (authority, folder) = (Authority::new(), Folder::new());
    authority.file(&folder);
    let certificate = authority.sign(&folder, "127.0.0.1");
    let chain: Vec<_> = CertificateDer::pem_file_iter(&certificate.chain)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || serve_secured(&listener, config));
    check_in(
        folder,
        r#"
local show = require "show"
local db = require("resty.mysql"):new()
db:set_timeout(5000)
show(db:connect { host = "127.0.0.1", port = PORT, user = "joe", password = "secret", ssl = true, ssl_verify = true })
show(db:query("select 1").affected_rows)
show(db:close())
"#,
        &[("PORT", port.to_string())],
        "1\n0\n1\n",
    );
    server.join().unwrap();
}
