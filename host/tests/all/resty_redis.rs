//! `resty.redis` against servers that only look like a Redis: replies in pieces, and replies that are
//! none.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::thread;

use crate::process::PATIENCE;
use crate::redis_trials::command;
use crate::resty::check;

/// A server that gives each command of each connection what `answer` makes of it; its port.
fn server(answer: fn(&[String]) -> &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            connection.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut reader = BufReader::new(connection.try_clone().unwrap());
            thread::spawn(move || {
                while let Some(words) = command(&mut reader) {
                    let answer = answer(&words);
                    let written = connection.write_all(answer.as_bytes());
                    if written.is_err() || answer == "end" {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[test]
fn a_time_out_in_the_middle_of_a_message_ends_the_connection() {
    let port = server(|words| match words[1].as_str() {
        "a" => "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
        _ => "*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\nhe",
    });
    check(
        r#"
local say = require "show"
local red = require("resty.redis"):new()
red:set_timeout(60000)
say(red:connect("127.0.0.1", PORT))
say(red:subscribe("a"))
red:set_timeouts(60000, 60000, 50)
say(red:read_reply())
red:set_timeout(60000)
say(red:subscribe("b"))
red:set_timeouts(60000, 60000, 50)
say(red:read_reply())
say(red:read_reply())
"#,
        &[("PORT", port.to_string())],
        "1 nil
{subscribe,a,1} nil
nil timeout
{subscribe,b,2} nil
nil timeout
nil closed",
    );
}

#[test]
fn what_is_no_reply_is_an_error() {
    let port = server(|words| match words[1].as_str() {
        "number" => "$x\r\n",
        "minus" => "$-7\r\n",
        "count" => "*many\r\n",
        "prefix" => "?what\r\n",
        "nothing" => "\r\n",
        "fraction" => ":1.5\r\n",
        "large" => "$9999999999\r\nend",
        _ => "+fine\r\n",
    });
    check(
        r#"
local say = require "show"
local redis = require "resty.redis"
for _, what in ipairs { "number", "minus", "count", "prefix", "nothing", "fraction", "else" } do
  local red = redis:new()
  red:set_timeout(60000)
  red:connect("127.0.0.1", PORT)
  say(what, red:get(what))
end
local red = redis:new()
red:set_timeouts(60000, 60000, 50)
red:connect("127.0.0.1", PORT)
say("large", red:get("large"))
say("large", red:get("else"))
"#,
        &[("PORT", port.to_string())],
        r#"number nil malformed number
minus null nil
count nil malformed number
prefix nil unknown prefix: "?"
nothing nil unknown prefix: "nil"
fraction nil malformed number
else fine nil
large nil timeout
large nil closed"#,
    );
}
