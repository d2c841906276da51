//! Shared dicts beside one request: what `init` opened, other instances, reloads that keep, resize
//! or fail.

use rustix::process::Signal;

use crate::client::get;
use crate::harness::Server;

const MODULE: &str = "
local kept = require 'kept'
return { incr = function() return (kept.first:incr('n', 1, 0)), (kept.all.second:incr('n', 10, 0)) end }
";

/// `init` opens `first` and then `second`; a handler opens `second` before it uses `first`.
fn config(size: &str, more: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:{{port}}"]
workers = 2

[shared.first]
size = "{size}"

[shared.second]
size = "1m"

[plugin.lua]
config = {{ path = "?.lua", init = """
local first, second = ngx.shared.first, ngx.shared.second
package.loaded.kept = {{ first = first, all = ngx.shared }}
first:incr('inits', 1, 0)
second:set('name', 'second')
""" }}

[[route]]
path = "/use"
lua.content = """
local kept = require 'kept'
ngx.say(ngx.shared.second:get('name'), ' ', kept.first:get('inits'), ' ', kept.all.second:get('name'))
ngx.say(ngx.shared.first == kept.first, ' ', kept.first:incr('n', 1, 0))"""

[[route]]
path = "/elsewhere"
lua.content = "ngx.say(ngx.run_worker_thread('default', 'work', 'incr'))"

[[route]]
path = "/fill"
lua.content = """
local first = ngx.shared.first
for i = 1, 100 do first:set('k' .. i, ('x'):rep(1000)) end
ngx.say(#first:get_keys(), ' ', first:capacity())"""

[[route]]
path = "/keys"
lua.content = """
local first = ngx.shared.first
ngx.say(first:capacity(), ' ', #first:get_keys())
first:set('new' .. ngx.now(), ('x'):rep(1000))
ngx.say(#first:get_keys() <= 18, ' ', first:free_space() > 0)"""
{more}"#
    )
}

#[test]
fn what_init_opened_is_open_in_every_instance() {
    let server = Server::start(&config("1m", ""), &[("work.lua", MODULE)]);
    for generation in 1..=3 {
        let before = (generation - 1) * 4;
        for turn in 1..=2 {
            assert_eq!(
                get(server.port(), "/use").text(),
                format!(
                    "second {generation} second\ntrue {}nilfalse\n",
                    before + turn
                )
            );
        }
        for turn in 1..=2 {
            assert_eq!(
                get(server.port(), "/elsewhere").text(),
                format!(
                    "true{}{}\n",
                    before + 2 + turn,
                    10 * (turn + (generation - 1) * 2)
                )
            );
        }
        server.reload();
    }
    server.stop(Signal::QUIT);
}

#[test]
fn a_reload_keeps_what_fits_another_size() {
    let server = Server::start(&config("1m", ""), &[("work.lua", MODULE)]);
    assert_eq!(get(server.port(), "/fill").text(), "101 1048576\n");
    // One that fails changes nothing, though `init` has run.
    server.rewrite(&config("20k", "\n[[route]]\npath = 7\n"));
    assert!(server.reload().contains("reload failed"));
    let broken = "\n[[route]]\npath = \"/broken\"\nlua.content = \"x =\"\n";
    server.rewrite(&config("20k", broken));
    assert!(server.reload().contains("reload failed"));
    assert!(
        get(server.port(), "/keys")
            .text()
            .starts_with("1048576 101\n")
    );
    // A smaller one: what was not used for longest goes with the next store.
    server.rewrite(&config("20k", ""));
    server.reload();
    assert_eq!(get(server.port(), "/keys").text(), "20480 102\ntrue true\n");
    server.rewrite(&config("2m", ""));
    server.reload();
    assert!(get(server.port(), "/fill").text().ends_with(" 2097152\n"));
    server.stop(Signal::QUIT);
}

#[test]
fn a_dict_that_is_no_longer_named_is_gone() {
    let named = "\n[shared.third]\nsize = \"1m\"\n[[route]]\npath = \"/third\"\nlua.content = \"ngx.say((ngx.shared.third and ngx.shared.third:incr('n', 1, 0)))\"\n";
    let unnamed = named.replace("\n[shared.third]\nsize = \"1m\"\n", "");
    let server = Server::start(&config("1m", named), &[("work.lua", MODULE)]);
    assert_eq!(get(server.port(), "/third").text(), "1\n");
    server.rewrite(&config("1m", &unnamed));
    server.reload();
    assert_eq!(get(server.port(), "/third").text(), "nil\n");
    server.rewrite(&config("1m", named));
    server.reload();
    assert_eq!(get(server.port(), "/third").text(), "1\n", "it began anew");
    server.stop(Signal::QUIT);
}
