//! What one request leaves behind, none sees: many requests at once on one worker, each with values
//! of its own in globals, `ngx.ctx` and headers, waiting in between.

use std::thread;

use rustix::process::Signal;

use crate::client::Client;
use crate::harness::Server;

const CONFIG: &str = r#"
[server]
workers = 1

[[route]]
path = "/own"
lua.rewrite = "assert(mine == nil, 'a leaked global') mine = ngx.var.arg_n ngx.ctx.n = ngx.var.arg_n"
lua.access = "ngx.sleep(0.001)"
lua.content = '''
local n = ngx.var.arg_n
global_n = n
ngx.sleep(tonumber(n) % 7 / 1000)
if global_n ~= n or ngx.ctx.n ~= n then ngx.exit(500) end
ngx.header["X-N"] = n
ngx.say(n)
'''
lua.header_filter = "ngx.header['X-Filter'] = ngx.ctx.n"
"#;

#[test]
fn requests_at_once_do_not_mix() {
    let server = Server::start(CONFIG, &[]);
    let port = server.port();
    thread::scope(|scope| {
        for worker in 0..16 {
            scope.spawn(move || {
                let mut client = Client::connect(port);
                for turn in 0..50 {
                    let n = (worker * 50 + turn).to_string();
                    let response = client.get(&format!("/own?n={n}")).unwrap();
                    assert_eq!(response.status, 200, "{}", response.text());
                    assert_eq!(response.text(), format!("{n}\n"));
                    assert_eq!(response.header("x-n"), Some(n.clone()));
                    assert_eq!(response.header("x-filter"), Some(n));
                }
            });
        }
    });
    let log = server.stop(Signal::QUIT);
    assert!(!log.contains("leaked"), "{log}");
}
