//! Cases as text: a document, and what is said about it or what it becomes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::directives::ROOT;
use super::document::{Value, parse as parse_document};
use super::model::{
    AccessLogFormat, Component, Content, Cosocket, ErrorTarget, Grant, Isolation, Limits,
    LogTarget, SetValue,
};
use super::value::{
    Cidr, HostPattern, HostPort, Origin, Part, PathPattern, Template, parse_size, parse_time,
};
use super::{Config, reference, schema};
use crate::phase::Phase;

mod faults;

fn environment(name: &str) -> Option<String> {
    (name == "REGION").then(|| "eu$1".to_owned())
}

/// A folder with the files that the cases name.
fn site() -> &'static Path {
    static SITE: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    SITE.get_or_init(|| {
        let site = std::env::temp_dir().join(format!("phasor-config-{}", std::process::id()));
        for folder in ["lua", "www", "data"] {
            std::fs::create_dir_all(site.join(folder)).unwrap();
        }
        std::fs::write(site.join("guard.wasm"), b"\0asm").unwrap();
        std::fs::write(site.join("lua/access.lua"), "return 1\n").unwrap();
        site
    })
}

fn parse(text: &str) -> Config {
    Config::parse_with(text, &site().join("phasor.toml"), &environment)
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// The diagnostics without the folder's name.
fn faults(text: &str) -> String {
    let path = site().join("phasor.toml");
    let diagnostics = Config::parse_with(text, &path, &environment).unwrap_err();
    diagnostics
        .to_string()
        .replace(&format!("{}/", site().display()), "")
}

const EXAMPLE: &str = r#"
[server]
listen = ["127.0.0.1:8000", { address = "*:8443", backlog = 16 }]
workers = 3
plugins = ["metrics"]
watch = true
body_limit = "2m"
header_limit = "32k"
idle_timeout = "75s"
drain = "1m30s"
access_log = { path = "-", format = "json" }
error_log = { path = "-", level = "warn" }
trusted_proxies = ["127.0.0.1/32"]
lua.server_rewrite = "ngx.var.x = 1"
lua.log = "log_server()"

[shared.hits]
size = "10m"

[plugin.metrics]
component = "bundled:metrics"

[plugin.guard]
component = "guard.wasm"
config = { per_second = 100, region = "${REGION}" }
allow = { connect = ["127.0.0.1:6379"], http = ["https://api.example.com"], shared = ["hits"], files = ["data:ro"], env = "*" }
limits = { memory = "64m", cpu = "40ms", deadline = "5s", instances = 8 }
isolation = "request"

[plugin.lua]
config = { path = "lua/?.lua", init = "config = require 'config' -- ${HOME}", init_worker = "ngx.timer.every(5, refresh)" }

[[route]]
host = "Example.com"
path = "/hello"
methods = ["GET"]
plugins = ["guard"]
set = { region = "$http_x_region", place = { lua = "return 'x'" }, who = { plugin = "guard" } }
lua.access = { file = "lua/access.lua" }
lua.log = "log_route()"
lua.content = '''
ngx.say('hello')
'''

[[route]]
path = "/static/*"
files = { root = "www", index = "index.html" }
final = true

[[route]]
name = "sold-out"
respond = { status = 410, body = "sold out in ${REGION}, ${arg_x}", headers = { x-a = "$uri" } }

[[route]]
regex = '^/v[0-9]{2}/'
content = "guard"
error_page = { 404 = "@sold-out", "500 502" = "/5xx.html" }
body_limit = "0"
"#;

#[test]
fn the_server_is_read_completely() {
    let config = parse(EXAMPLE);
    let server = &config.server;
    assert_eq!(server.listen[0].address.to_string(), "127.0.0.1:8000");
    assert_eq!(server.listen[1].address.to_string(), "0.0.0.0:8443");
    assert_eq!(
        (server.listen[0].backlog, server.listen[1].backlog),
        (511, 16)
    );
    assert_eq!(server.workers.map(std::num::NonZeroUsize::get), Some(3));
    assert_eq!(server.plugins, [0]);
    assert!(server.watch);
    assert_eq!(
        (server.body_limit, server.header_limit),
        (2 << 20, 32 << 10)
    );
    assert_eq!(server.drain, Duration::from_secs(90));
    assert_eq!(server.header_timeout, Duration::from_secs(60));
    assert_eq!(server.access_log.format, AccessLogFormat::Json);
    assert_eq!(server.error_log.level.name(), "warn");
    assert!(server.trusted_proxies[0].contains("127.0.0.1".parse().unwrap()));
    assert_eq!(server.lua[0].phase, Phase::ServerRewrite);
    assert_eq!(config.shared_dicts[0].size, 10 << 20);
}

#[test]
fn plugins_are_read_completely() {
    let config = parse(EXAMPLE);
    let guard = &config.plugins[1];
    assert_eq!(guard.component, Component::File(site().join("guard.wasm")));
    assert_eq!(
        guard.config,
        serde_json::json!({ "per_second": 100, "region": "eu$1" })
    );
    assert_eq!(guard.isolation, Isolation::Request);
    assert_eq!(guard.limits.cpu, Duration::from_millis(40));
    assert_eq!(guard.limits.memory(true), 64 << 20);
    assert_eq!(guard.allow.env, Grant::All);
    assert!(
        guard
            .allow
            .connect
            .allows(|host| host.fits("127.0.0.1", 6379))
    );
    assert!(
        guard
            .allow
            .http
            .allows(|origin| origin.fits("https", "API.example.com", 443))
    );
    assert!(!guard.allow.files[0].write);
    let lua = &config.plugins[2];
    assert!(lua.component.is_lua());
    assert_eq!(lua.config, serde_json::json!({ "path": "lua/?.lua" }));
    assert_eq!(lua.lua[0].phase, Phase::Init);
    assert_eq!(
        lua.lua[0].source.source,
        "config = require 'config' -- ${HOME}"
    );
    assert_eq!(lua.limits.memory(true), Limits::MEMORY_REACTOR);
}

#[test]
fn routes_are_read_completely() {
    let config = parse(EXAMPLE);
    let hello = &config.routes[0];
    assert_eq!(hello.host, HostPattern::Exact("example.com".to_owned()));
    assert_eq!(hello.path, Some(PathPattern::Exact("/hello".to_owned())));
    assert_eq!(hello.methods, ["GET", "HEAD"]);
    assert_eq!(hello.plugins, [0, 1]);
    let names: Vec<_> = hello.set.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["region", "place", "who"]);
    assert!(matches!(&hello.set[1].value, SetValue::Lua(lua) if lua.phase == Phase::Set));
    assert_eq!(hello.set[2].value, SetValue::Plugin(1));
    let sources: Vec<_> = hello
        .lua
        .iter()
        .map(|lua| lua.source.source.as_str())
        .collect();
    assert_eq!(sources, ["return 1\n", "log_server()", "log_route()"]);
    assert_eq!(hello.lua[0].source.chunk, "@lua/access.lua");
    let Some(Content::Lua(content)) = &hello.content else {
        panic!("{:?}", hello.content)
    };
    assert_eq!(content.source.source, "ngx.say('hello')\n");
    let line = EXAMPLE
        .lines()
        .position(|line| line == "ngx.say('hello')")
        .unwrap()
        + 1;
    assert_eq!(
        (content.source.chunk.as_str(), content.source.line),
        ("@phasor.toml", line)
    );

    let prefix = PathPattern::Prefix {
        prefix: "/static/".to_owned(),
        is_final: true,
    };
    assert_eq!(config.routes[1].path, Some(prefix));
    let Some(Content::Respond(respond)) = &config.routes[2].content else {
        panic!()
    };
    assert_eq!(respond.status, 410);
    let body = [
        Part::Literal(b"sold out in eu$1, ".to_vec()),
        Part::Variable("arg_x".to_owned()),
    ];
    assert_eq!(respond.body.parts, body);
    assert_eq!(config.routes[2].path, None);

    let last = &config.routes[3];
    assert_eq!(last.content, Some(Content::Plugin(1)));
    assert_eq!(
        (last.body_limit, config.routes[0].body_limit),
        (u64::MAX, 2 << 20)
    );
    let pages: Vec<_> = last
        .error_page
        .iter()
        .map(|page| (page.status, &page.target))
        .collect();
    let uri = ErrorTarget::Uri("/5xx.html".to_owned());
    assert_eq!(
        pages,
        [(404, &ErrorTarget::Route(2)), (500, &uri), (502, &uri)]
    );
    assert_eq!(config.files().count(), 3);
}

#[test]
fn the_lua_plugin_need_not_be_written() {
    let config = parse("[[route]]\npath = '/'\nlua.content = \"ngx.say(1)\"\n");
    assert_eq!(config.plugins.len(), 1);
    assert_eq!(
        (config.plugins[0].name.as_str(), config.plugins[0].line),
        ("lua", 0)
    );
    assert_eq!(config.plugins[0].limits, Limits::default());
    let config = parse(
        "[plugin.shop]\ncomponent = 'bundled:lua'\n[[route]]\npath = '/'\nlua.vm = 'shop'\nlua.content = 'x()'\n",
    );
    assert_eq!(config.plugins.len(), 1);
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = parse("");
    assert_eq!(
        config.server.listen[0].address.to_string(),
        "127.0.0.1:8000"
    );
    assert_eq!(config.server.access_log.target, LogTarget::Standard);
    assert_eq!(config.server.access_log.format, AccessLogFormat::Combined);
    assert_eq!(
        (config.server.body_limit, config.server.keepalive_requests),
        (1 << 20, 1000)
    );
    assert!(
        config.server.workers.is_none() && config.routes.is_empty() && config.plugins.is_empty()
    );
    let limits = parse("[plugin.lua]").plugins[0].limits.clone();
    assert_eq!(limits, Limits::default());
    let sockets = parse("[plugin.lua.cosocket]").plugins[0].cosocket.clone();
    assert_eq!(sockets, Cosocket::default());
}

#[test]
fn every_default_has_the_form_of_its_directive() {
    let mut reporter = super::diagnostic::Reporter::new("defaults", "");
    let document = parse_document("", &ROOT, &|_| None, &mut reporter).unwrap();
    assert!(!reporter.has_errors(), "{}", reporter.into_diagnostics());
    assert!(matches!(
        document.node("server").unwrap().value,
        Value::Table(_)
    ));
}

#[test]
fn sizes_and_times() {
    for (text, size) in [
        ("0", 0),
        ("512", 512),
        ("64k", 65_536),
        ("10M", 10 << 20),
        ("1g", 1 << 30),
    ] {
        assert_eq!(parse_size(text), Ok(size), "{text}");
    }
    for text in [
        "",
        "k",
        "1kb",
        "-1",
        "+1",
        "1.5m",
        "1 k",
        "99999999999g",
        "é",
    ] {
        assert!(parse_size(text).is_err(), "{text}");
    }
    for (text, time) in [
        ("200ms", 200),
        ("5s", 5_000),
        ("10m", 600_000),
        ("1h30m", 5_400_000),
        ("1d", 86_400_000),
    ] {
        assert_eq!(parse_time(text), Ok(Duration::from_millis(time)), "{text}");
    }
    for text in [
        "",
        "5",
        "s",
        "1m1h",
        "1s1s",
        "-5s",
        "5 s",
        "5é",
        "99999999999999999999d",
    ] {
        assert!(parse_time(text).is_err(), "{text}");
    }
}

#[test]
fn templates() {
    let parts = |text: &str| Template::parse(text, &environment).unwrap().parts;
    let literal = |text: &str| Part::Literal(text.as_bytes().to_vec());
    let variable = |name: &str| Part::Variable(name.to_owned());
    assert_eq!(parts(""), []);
    assert_eq!(parts("a$$b"), [literal("a$b")]);
    assert_eq!(
        parts("$uri?$args"),
        [variable("uri"), literal("?"), variable("args")]
    );
    assert_eq!(
        parts("${uri}x$1y"),
        [variable("uri"), literal("x"), variable("1"), literal("y")]
    );
    assert_eq!(
        parts("100 $ and ${ and ${a b}"),
        [literal("100 $ and ${ and ${a b}")]
    );
    assert_eq!(parts("$${REGION}$"), [literal("${REGION}$")]);
    assert_eq!(parts("-${REGION}-"), [literal("-eu$1-")]);
    assert!(Template::parse("${MISSING}", &environment).is_err());
    let mut out = Vec::new();
    let template = Template::parse("<$a>", &environment).unwrap();
    template.render(&mut out, |name, out| out.extend_from_slice(name.as_bytes()));
    assert_eq!(out, b"<a>");
}

#[test]
fn hosts_ranges_and_grants() {
    assert_eq!(
        HostPattern::parse("*.A.b"),
        Ok(HostPattern::Wildcard(".a.b".to_owned()))
    );
    assert!(HostPattern::parse("[::1]").is_ok());
    for text in ["", "*", "a.*", "a..b", "a:80", "a/b", "[x]", "*.*.a"] {
        assert!(HostPattern::parse(text).is_err(), "{text}");
    }
    let range = |text: &str, address: &str| {
        Cidr::parse(text)
            .unwrap()
            .contains(address.parse().unwrap())
    };
    assert!(range("10.0.0.0/8", "10.255.0.1") && !range("10.0.0.0/8", "11.0.0.1"));
    assert!(range("0.0.0.0/0", "1.2.3.4") && range("::/0", "fd00::1") && !range("::/0", "1.2.3.4"));
    assert!(range("127.0.0.1", "::ffff:127.0.0.1") && !range("fd00::/8", "fe80::1"));
    for text in ["10.0.0.0/33", "x", "1.2.3.4/", "::1/129", "1.2.3.4/-1"] {
        assert!(Cidr::parse(text).is_err(), "{text}");
    }
    let fits = |text: &str, host: &str, port| HostPort::parse(text).unwrap().fits(host, port);
    assert!(fits("*.x.y:443", "A.x.y", 443) && !fits("*.x.y:443", "x.y", 443));
    assert!(fits("*:*", "a", 1) && fits("[::1]:*", "[::1]", 5) && fits("[::1]:5", "::1", 5));
    assert!(!fits("a:1", "b", 1) && !fits("a:1", "a", 2));
    assert!(HostPort::parse("a").is_err() && HostPort::parse("a:99999").is_err());
    let origin = Origin::parse("http://[::1]").unwrap();
    assert!(origin.fits("http", "::1", 80) && !origin.fits("https", "::1", 80));
    assert!(Origin::parse("https://a/b").is_err() && Origin::parse("ftp://a").is_err());
}

#[test]
fn schema_and_reference_name_every_directive_that_is_offered() {
    let (page, schema) = (reference(), schema());
    for directive in ROOT.directives {
        let property = &schema["properties"][directive.name];
        assert_eq!(property.is_null(), !directive.offered, "{}", directive.name);
    }
    assert_eq!(
        schema["properties"]["server"]["properties"]["drain"]["default"],
        "30s"
    );
    for text in [
        "## `[server]`",
        "## `[[route]]`",
        "| `header_timeout` | time | `\"60s\"` |",
    ] {
        assert!(page.contains(text), "{text}\n{page}");
    }
}
