//! `resty.dns.resolver` against dnsmasq, and `resty.http` against Phasor itself.

use std::process::Command;

use rustix::process::Signal;

use crate::client::{Client, get};
use crate::harness::{Server, free_port};
use crate::process::{Process, have};
use crate::resty::{check, start};

const DNS: &str = r#"
local show = require "show"
local resolver = require "resty.dns.resolver"
local r = resolver:new{ nameservers = { { "127.0.0.1", PORT } }, retrans = 2, timeout = 5000 }
local function ask(name, kind)
  local one, other = r:query(name, { qtype = kind }), r:tcp_query(name, { qtype = kind })
  for _, list in ipairs { one, other } do
    for i, a in ipairs(list) do
      list[i] = a.address or a.cname or a.ptrdname or a.txt or (a.target and a.target .. ":" .. a.port) or (a.exchange .. " " .. a.preference)
      if a.name ~= name and a.type ~= r.TYPE_A then list[i] = "of " .. a.name end
    end
  end
  show(one, other)
end
ask("a.test") ask("a.test", r.TYPE_AAAA) ask("c.test") ask("t.test", r.TYPE_TXT)
ask("_x._tcp.test", r.TYPE_SRV) ask("m.test", r.TYPE_MX) ask("many.test")
show(r:reverse_query("1.2.3.4")[1].ptrdname)
local none = r:query("nowhere.invalid")
show(none.errcode, none.errstr)
local full = r:query("a.test")[1]
show(full.name, full.type, full.class, full.section, full.ttl)
show(r.arpa_str("fd00::1"))
show(r.compress_ipv6_addr("fd00:0:0:0:0:0:1:2"), r.expand_ipv6_addr("::1"))
show(r:query("a..b"))
show(resolver:new())
show(resolver:new{})
local deaf = resolver:new{ nameservers = { { "127.0.0.1", 1 } }, retrans = 2, timeout = 300 }
local tries = {}
local list, err = deaf:query("a.test", nil, tries)
show(list, #tries, err == tries[2])
"#;

/// A name server that listens on a port and knows what the arguments say; `None` where there is none.
pub(crate) fn dnsmasq(arguments: impl FnOnce(&mut Command)) -> Option<(Process, u16)> {
    if !have("dnsmasq") {
        return None;
    }
    let port = free_port();
    let user = if rustix::process::geteuid().is_root() {
        "--user=root"
    } else {
        "--user="
    };
    let mut command = Command::new("dnsmasq");
    command
        .args([
            "--no-daemon",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
        ])
        .args(["--conf-file=/dev/null", "--pid-file=", user])
        .arg(format!("--port={port}"))
        .arg("--listen-address=127.0.0.1");
    arguments(&mut command);
    Some((start(&mut command, port), port))
}

/// What the name server of the test knows.
fn records(command: &mut Command) {
    command
        .args(["--address=/a.test/10.1.2.3", "--address=/a.test/fd00::1:2"])
        .args(["--cname=c.test,b.test", "--host-record=b.test,10.1.2.4"])
        .args([
            "--txt-record=t.test,hello,world",
            "--mx-host=m.test,b.test,30",
        ])
        .arg("--srv-host=_x._tcp.test,b.test,8080,5,7")
        .arg("--ptr-record=4.3.2.1.in-addr.arpa,ptr.test");
    // More than fits into a datagram without EDNS.
    for i in 1..=60 {
        command.arg(format!("--host-record=many.test,10.9.0.{i}"));
    }
}

#[test]
fn dns() {
    let Some((_dnsmasq, port)) = dnsmasq(records) else {
        return;
    };
    let many = (1..=60).map(|i| format!("10.9.0.{i}")).collect::<Vec<_>>();
    let script = DNS.replace(
        "ask(\"many.test\")",
        "local l = r:query(\"many.test\") show(#l)",
    );
    check(
        &script,
        &[("PORT", port.to_string())],
        &format!(
            r"
{{10.1.2.3}} {{10.1.2.3}}
{{fd00:0:0:0:0:0:1:2}} {{fd00:0:0:0:0:0:1:2}}
{{b.test,10.1.2.4}} {{b.test,10.1.2.4}}
{{{{hello,world}}}} {{{{hello,world}}}}
{{b.test:8080}} {{b.test:8080}}
{{b.test 30}} {{b.test 30}}
{}
ptr.test
5 refused
a.test 1 1 1 0
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa
fd00::1:2 0:0:0:0:0:0:0:1
nil bad name nil
nil no options table specified
nil no nameservers specified
nil 2 true
",
            many.len()
        ),
    );
}

const HTTP: &str = r#"
local show = require "show"
local http = require "resty.http"
local base = "http://127.0.0.1:" .. ngx.var.server_port
local h = http.new()
local res, err = h:request_uri(base .. "/echo?x=1", { method = "POST", body = "hello", headers = { ["X-Mine"] = "1" } })
show(res.status, err, (res.body:gsub("\n", "")), res.headers["x-two"], res.headers.CONTENT_TYPE)
res, err = h:request_uri(base .. "/stream", { query = { a = 1 } })
show(res.status, err, res.body, res.headers["Transfer-Encoding"])
h = http.new()
show((h:connect("127.0.0.1", tonumber(ngx.var.server_port))), (h:get_reused_times() or 0) > 0)
res = h:request{ path = "/stream" }
show(res.status, res.reason, res.has_body)
local all = {}
repeat local piece, e = res.body_reader(8) all[#all + 1] = piece until not piece
show(table.concat(all), #all)
show(h:set_keepalive())
h = http.new()
show((h:connect{ scheme = "http", host = "127.0.0.1", port = tonumber(ngx.var.server_port) }))
local list = h:request_pipeline{ { path = "/echo" }, { path = "/nowhere" }, { path = "/echo?2" } }
for _, r in ipairs(list) do show(r.status, (r:read_body():sub(1, 6):gsub("\n", ""))) end
local n = 0
res = h:request{ method = "PUT", path = "/echo", headers = { ["Transfer-Encoding"] = "chunked" },
  body = function() n = n + 1 if n < 4 then return "piece" .. n end end }
show((res:read_body():gsub("\n", "")))
res = h:request{ method = "HEAD", path = "/echo" }
show(res.status, res.has_body, "[" .. res:read_body() .. "]")
res = h:request{ path = "/echo", headers = { Connection = "close" } }
res:read_body()
show(h:set_keepalive())
show(http:parse_uri("https://x.test/a?b=c"))
show(http:parse_uri("http://[::1]:81", false))
show(http:parse_uri("nonsense"))
show(http.new():request_uri("http://127.0.0.1:1/"))
h = http.new()
h:connect("127.0.0.1", tonumber(ngx.var.server_port))
show(h:request{ path = "/a b\r\nX: y" })
show(h:request{ path = "/", headers = { ["X-A"] = "b\r\nX: y" } })
"#;

#[test]
fn http() {
    check(
        HTTP,
        &[],
        r"
200 nil POST x=1 hello 1 {a,b} text/plain
200 nil 111111111122222222223333333333 chunked
1 true
200 OK true
111111111122222222223333333333 6
1
true
200 GET ni
404 <html>
200 GET 2 
PUT nil piece1piece2piece3 nil
200 false []
2 connection must be closed
{https,x.test,443,/a?b=c,}
{http,[::1],81,/,}
nil bad uri: nonsense
nil connection refused
nil invalid method or path
nil invalid header: X-A
",
    );
}

const UPLOAD: &str = r#"
[server]
workers = 1
[[route]]
path = "/upload"
lua.content = """
local form, err = require('resty.upload'):new(tonumber(ngx.var.arg_size) or 8, 64)
if not form then return ngx.say(err) end
while true do
  local kind, what, err = form:read()
  if not kind then ngx.say('error ', err) break end
  if type(what) == 'table' then what = what[1] .. '=' .. what[2] end
  ngx.say(kind, what and ' ' .. what:gsub('[\\r\\n]', '.') or '')
  if kind == 'eof' then break end
end
"""
[[route]]
path = "/discard"
lua.content = "ngx.req.discard_body() ngx.say('discarded')"
[[route]]
path = "/hello"
lua.content = "ngx.say('hello')"
"#;

const FORM: &str = "preamble\r\n--xyz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nvalue of a\r\n\
--xyz\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f.txt\"\r\nContent-Type: text/plain\r\n\r\n\
line one\r\n--xy is no boundary\r\n--xyz--\r\nepilogue";

fn upload(server: &Server, query: &str, kind: &str, body: &str) -> String {
    let mut client = Client::connect(server.port());
    client.send(format!(
        "POST /upload{query} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    // In small pieces, so that boundaries are cut.
    for piece in body.as_bytes().chunks(7) {
        client.send(piece);
    }
    client.response(false).unwrap().text()
}

#[test]
fn uploads() {
    let server = Server::start(UPLOAD, &[]);
    let form = "multipart/form-data; boundary=xyz";
    let whole = upload(&server, "?size=4096", form, FORM);
    assert_eq!(
        whole,
        "header Content-Disposition=form-data; name=\"a\"\nbody value of a\npart_end\n\
         header Content-Disposition=form-data; name=\"f\"; filename=\"f.txt\"\n\
         header Content-Type=text/plain\nbody line one..--xy is no boundary\npart_end\neof\n"
    );
    let pieces = upload(&server, "", form, FORM);
    assert!(
        pieces.contains("body value of\nbody  a\npart_end\n"),
        "{pieces}"
    );
    let joined: String = pieces
        .lines()
        .filter_map(|line| line.strip_prefix("body "))
        .collect();
    assert_eq!(joined, "value of aline one..--xy is no boundary");
    assert_eq!(
        upload(&server, "", "text/plain", "x"),
        "no boundary defined in Content-Type\n"
    );
    let cut = upload(&server, "", form, "--xyz\r\nA: b\r\n\r\nno end");
    assert!(cut.ends_with("error closed\n"), "{cut}");
    let long = format!("--xyz\r\nA: {}\r\n\r\n", "x".repeat(100));
    assert!(upload(&server, "", form, &long).contains("error line too long"));
    // Who discards a slow client's body holds up nobody.
    let mut slow = Client::connect(server.port());
    slow.send("POST /discard HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345");
    for _ in 0..5 {
        assert_eq!(get(server.port(), "/hello").text(), "hello\n");
    }
    slow.send("67890");
    assert_eq!(slow.response(false).unwrap().text(), "discarded\n");
    server.stop(Signal::QUIT);
}
