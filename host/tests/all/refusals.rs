//! What `allow` does not name is refused in whatever phase it is asked for, and the error log says by
//! which plugin, in which phase, and what it wanted.

use std::net::TcpListener;

use regex::Regex;
use rustix::process::Signal;

use crate::client::get;
use crate::harness::Server;

/// What is asked for, and what the log calls it.
const WANTED: &[(&str, &str)] = &[
    (
        "local s = ngx.socket.tcp() return s:connect('127.0.0.1', PORT)",
        "allow.connect does not cover `127.0.0.1:PORT`",
    ),
    (
        "return ngx.socket.tcp():connect('localhost', PORT)",
        "allow.connect does not cover `localhost:PORT`",
    ),
    (
        "return ngx.socket.tcp():connect('unix:/run/PORT.sock')",
        "allow.connect does not cover `unix:/run/PORT.sock`",
    ),
    (
        "return ngx.socket.udp():setpeername('127.0.0.1', PORT)",
        "allow.connect does not cover `127.0.0.1:PORT`",
    ),
    (
        "return require('resty.redis'):new():connect('127.0.0.1', PORT)",
        "allow.connect does not cover `127.0.0.1:PORT`",
    ),
    (
        "return require('phasor.http').fetch('http://127.0.0.1:PORT/')",
        "allow.http does not cover `http://127.0.0.1:PORT`",
    ),
    (
        "return require('phasor.redis').new('main'):get('PORT')",
        "allow.redis does not cover `main: GET PORT`",
    ),
    (
        "return require('phasor.cache').open('kept'):get('k', nil, function() return 1 end)",
        "allow.cache does not cover `kept`",
    ),
    (
        "return require('phasor.lock').open('turns'):acquire('a')",
        "allow.lock does not cover `turns`",
    ),
];

/// Those where an answer can be made, too.
const ANSWERING: (&str, &str) = (
    "return ngx.location.capture('/inner').body",
    "allow.subrequest does not cover `/inner`",
);

const CONFIG: &str = r#"
[server]
workers = 1
[shared.open]
size = "64k"
[cache.kept]
[lock.turns]
[redis.main]
url = "redis://127.0.0.1:PORT"
[plugin.lua]
limits = { cpu = "5s" }
allow = { connect = ["127.0.0.1:1"], http = ["http://127.0.0.1:1"], redis = ["main: PING"], cache = [], lock = [], shared = ["open"], subrequest = ["/leaf"] }
[[route]]
path = "/all"
lua.rewrite = "require('all')('rewrite')"
lua.content = "require('all')('content') ngx.say('done')"
lua.header_filter = "require('all')('header_filter')"
lua.log = "require('all')('log') ngx.log(ngx.WARN, 'over')"
[[route]]
path = "/inner"
respond = { body = "inner" }
"#;

/// A module that asks for all and says what came of it.
fn module(port: &str) -> String {
    let mut text = String::from("local list = {}\n");
    for (lua, _) in WANTED.iter().chain([&ANSWERING]) {
        text.push_str(&format!("list[#list + 1] = function() {lua} end\n"));
    }
    text.push_str(
        "return function(phase)\n\
           local most = (phase == 'rewrite' or phase == 'content') and #list or #list - 1\n\
           for i = 1, most do\n\
             local fine, result, why = pcall(list[i])\n\
             ngx.log(ngx.WARN, 'RESULT ', phase, ' ', i, ' ', fine and tostring(result) or 'raised', ' ', tostring(why or result), ' END')\n\
           end\n\
         end\n",
    );
    text.replace("PORT", port)
}

#[test]
fn are_values_and_lines_with_plugin_phase_and_target() {
    // Nobody may come here.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let config = CONFIG.replace("PORT", &port);
    let server = Server::start(&config, &[("lua/all.lua", &module(&port))]);
    let answer = get(server.port(), "/all").text();
    assert_eq!(answer, "done\n", "{}", server.log_since(0));
    server.wait_log("over", 0);
    let log = server.stop(Signal::QUIT);
    for phase in ["rewrite", "content", "header_filter", "log"] {
        let may_answer = matches!(phase, "rewrite" | "content");
        let wanted = WANTED.iter().chain(may_answer.then_some(&ANSWERING));
        for (i, (lua, target)) in wanted.enumerate() {
            let said = format!("RESULT {phase} {} (nil|false|raised) .* END", i + 1);
            let said = Regex::new(&said).unwrap();
            assert!(said.is_match(&log), "{phase}, {lua}:\n{log}");
            let refused = format!("refused: {}", target.replace("PORT", &port));
            let lines: Vec<&str> = log.lines().filter(|l| l.contains(&refused)).collect();
            assert!(
                lines
                    .iter()
                    .any(|line| line.contains(&format!("plugin: \"lua\", phase: {phase},"))),
                "{phase}, {lua}: {lines:?}"
            );
        }
    }
    assert!(listener.accept().is_err(), "somebody came");
}
