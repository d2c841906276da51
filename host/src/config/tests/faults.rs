//! What is wrong with a document is said at its place, with what would be right.

use std::path::Path;

use proptest::prelude::{ProptestConfig, any};
use proptest::proptest;

use super::{Config, EXAMPLE, faults};

/// One line per diagnostic: `line:column: message`.
fn brief(text: &str) -> Vec<String> {
    let all = faults(text);
    let heads = all
        .lines()
        .filter_map(|line| line.strip_prefix("phasor.toml:"));
    heads.map(|line| line.replacen(" error:", "", 1)).collect()
}

#[test]
fn a_diagnostic_shows_its_line() {
    let expected = "phasor.toml:2:1: error: unknown key `lisen`: did you mean `listen`?\n    \
                    2 | lisen = \"127.0.0.1:80\"\n      | ^^^^^";
    assert_eq!(faults("[server]\nlisen = \"127.0.0.1:80\"\n"), expected);
}

#[test]
fn a_file_that_is_not_there() {
    let path = Path::new("none/phasor.toml");
    let text = Config::load(path).unwrap_err().to_string();
    assert!(
        text.starts_with("none/phasor.toml: error: cannot read the configuration: "),
        "{text}"
    );
}

/// A document, and the beginnings of all that is said about it.
const CASES: &[(&str, &[&str])] = &[
    ("[server\n", &["1:8: "]),
    (
        "[server]\nwatch = true\nwatch = true\n",
        &["3:1: duplicate key"],
    ),
    (
        "[server]\nfoo = 1\n",
        &["2:1: unknown key `foo`: [server] has `listen`, `workers`"],
    ),
    (
        "[sever]\n",
        &["1:2: unknown key `sever`: did you mean `server`?"],
    ),
    (
        "[server]\nbody_limit = 64\nidle_timeout = 5\nwatch = \"yes\"\nworkers = 0\nlisten = 80",
        &[
            "2:14: expected a size as a string, like \"64k\", \"10m\" or \"1g\", found a whole number; write \"64\" for bytes, or \"64k\"",
            "3:16: expected a time as a string, like \"200ms\", \"5s\" or \"10m\", found a whole number; write \"5s\" or \"5ms\"",
            "4:9: expected true or false, found a string",
            "5:11: 0 is out of range: expected a whole number from 1 to 1024",
            "6:10: expected a string, or a table like { address = …, backlog = … }, or a list of",
        ],
    ),
    (
        "[server]\nbody_limit = \"64q\"\ndrain = \"5\"\nheader_limit = \"1k\"\nsend_timeout = \"0s\"\nworkers = \"aut\"",
        &[
            "2:14: `64q` is not a size: a size is a string like",
            "3:9: `5` is not a time: a time is a string like",
            "4:16: \"1k\" is too small: the least is \"8k\"",
            "5:16: \"0s\" is too short: the least is \"1ms\"",
            "6:11: unknown value \"aut\": did you mean \"auto\"?",
        ],
    ),
    (
        "[server]\nlisten = [\"localhost\", \"127.0.0.1:80\", \"127.0.0.1:80\"]\nadmin = \"x\"\n",
        &[
            "2:11: `localhost` is not an address: write IP:PORT",
            "2:40: `127.0.0.1:80` is listened on already",
            "3:1: `admin` is not offered by this version",
        ],
    ),
    (
        "[server]\nlisten = []\n",
        &["2:10: expected at least one address"],
    ),
    (
        "[server]\nlisten = [{ address = \"*:80\", tls = \"x\" }, {}]\n",
        &[
            "2:31: `tls` is not offered by this version",
            "2:44: `listen` needs the key `address`: a string",
        ],
    ),
    (
        "[server]\naccess_log = { format = \"jsn\" }\nerror_log = \"nowhere/x.log\"\ntrusted_proxies = [\"10.0.0.0/40\"]\n",
        &[
            "2:25: unknown format \"jsn\": did you mean \"json\"?",
            "3:13: `nowhere/x.log`: there is no folder nowhere: make it",
            "4:20: `10.0.0.0/40` is not an address range",
        ],
    ),
    (
        "[tls.site]\ncertificate = 1\n[upstream.app]\n",
        &[
            "1:2: `tls` is not offered by this version",
            "3:2: `upstream` is not offered by this version",
        ],
    ),
    (
        "[shared.hits]\n[shared.a]\nsize = \"1k\"\n",
        &[
            "1:1: `[shared.NAME]` needs the key `size`",
            "3:8: \"1k\" is too small: the least is \"8k\"",
        ],
    ),
    (
        "[[route]]\npath='/a'\nproxy='ftp://x'\n[[route]]\npath='/b'\nproxy='http://x:0'\n[[route]]\npath='/c'\nproxy='http://x/?q'\n[[route]]\nregex='/d'\nproxy='http://x/y'\n[[route]]\npath='/e'\nproxy={}\n[[route]]\npath='/f'\nproxy='http://x'\nrespond={}\n",
        &[
            "3:7: `ftp` is not a scheme of a proxy",
            "6:7: `x:0` is not a host and a port",
            "9:7: `/?q`: a proxy's URL has no query",
            "12:7: a path in the URL takes the place of the route's `path`",
            "15:7: `proxy` needs the key `url`",
            "19:1: a route has one content: `respond` cannot stand beside `proxy` on line 18",
        ],
    ),
    (
        "[redis.a]\nurl='http://x'\n[redis.b]\nurl='redis://h:0'\n[redis.c]\nurl='redis+sentinel://h'\n[redis.d]\nurl='redis://a,b'\n[redis.e]\n[redis.f]\nurl='redis://h/x'\n[redis.g]\nurl='unix:tmp'\n[redis.h]\nurl='redis+cluster://a,b/2'\n",
        &[
            "2:5: `http` is not a scheme of Redis",
            "4:5: `h:0` is not a host and a port",
            "6:5: the sentinels' URL lacks the master's name",
            "8:5: several servers are sentinels",
            "9:1: `[redis.NAME]` needs the key `url`",
            "11:5: `x` is not a database's number",
            "13:5: `tmp` is not a path from the root",
            "15:5: a cluster has one database: leave its number out",
        ],
    ),
    (
        "[redis.a]\nurl='redis://h'\n[cache.b]\nl3={redis='a',prefix='x:'}\n[cache.c]\nl3={redis='a'}\n[lock.d]\nredis='a'\nprefix='x:'\n[lock.c]\nredis='a'\n[lock.e]\nredis='a'\nprefix='lock:c:'\n",
        &[
            "9:8: [cache.b] has the prefix `x:` in that Redis: each table has one of its own",
            "14:8: [lock.c] has the prefix `lock:c:` in that Redis: each table has one of its own",
        ],
    ),
    (
        "[redis.a]\nurl='redis+cluster://a,b'\n[lock.b]\nredis='a'\n[lock.c]\nredis='aa'\nhold='0s'\n[lock.d]\nprefix='x'\n",
        &[
            "4:7: `a` is a Redis cluster: locks live in one server",
            "6:7: there is no redis `aa`: did you mean `a`?",
            "7:6: \"0s\" is too short",
            "9:8: `prefix` is for locks in Redis: add `redis`",
        ],
    ),
    (
        "[cache.things]\nttl='soon'\njitter=101\nl1={items=-1}\nl2={size='1k'}\nlease='0ms'\nl3={redis='main'}\n[plugin.a]\ncomponent='bundled:lua'\nallow={cache=['thing','stuff']}\n",
        &[
            "2:5: `soon` is not a time",
            "3:8: 101 is out of range",
            "4:11: -1 is out of range",
            "5:10: \"1k\" is too small: the least is \"8k\"",
            "6:7: \"0ms\" is too short",
            "7:11: there is no redis `main`: add [redis.main]",
            "10:15: there is no cache `thing`: did you mean `things`?",
            "10:23: there is no cache `stuff`: add [cache.stuff]",
        ],
    ),
    (
        "[redis.r]\nurl='redis://127.0.0.1'\n[cache.a]\nl3={redis='r',prefix='p:'}\n[cache.b]\nl3={redis='r',prefix='p:'}\n[cache.c]\nl3={redis='r',prefix='d:'}\n[cache.d]\nl3={redis='r'}\n",
        &[
            "6:22: [cache.a] has the prefix `p:` in that Redis: each table has one of its own",
            "10:11: [cache.c] has the prefix `d:` in that Redis: each table has one of its own",
        ],
    ),
    (
        "[cache.a]\ndisk={path='var/a',size='1m'}\n[cache.b]\ndisk={path='var/a/b',queue='1k'}\n[cache.c]\ndisk={path=''}\n[cache.d]\ndisk={size='1g',compress='4k'}\n",
        &[
            "2:25: \"1m\" is too small: the least is \"16m\"",
            "4:12: the folder of [cache.a] is `var/a`: each cache has one of its own",
            "4:28: \"1k\" is too small: the least is \"64k\"",
            "6:12: the path is empty: name a folder",
            "8:6: `[cache.NAME] disk` needs the key `path`",
            "8:17: unknown key `compress`",
        ],
    ),
    (
        "[shared.hits]\nsize='1m'\n[plugin.a]\n[plugin.b]\ncomponent='b.wasm'\nallow={shared=['hit'],files=['data','none:ro'],connect=['x'],redis=['man: GET a','a: b*c: d']}\nlimits={cpu='0ms'}\nconfig={x='${NOPE}'}\n",
        &[
            "3:9: [plugin.a] needs the key `component`",
            "5:11: `b.wasm`: no such file (looked at b.wasm)",
            "6:16: there is no shared dict `hit`: did you mean `hits`?",
            "6:30: `data` does not say what is allowed: write \"data:ro\" or \"data:rw\"",
            "6:37: `none`: no such folder",
            "6:57: `x` is not a host and a port",
            "6:69: there is no redis `man`: add [redis.man]",
            "6:82: `a: b*c: d` is not a rule for Redis",
            "7:13: \"0ms\" is too short",
            "8:11: the environment variable `NOPE` is not set",
        ],
    ),
    (
        "[[route]]\npath='/a'\nrespond={status=99}\nfiles={root='none'}\nlua.content='x'\n[[route]]\nlua.vm='nope'\nproxy='app'\n",
        &[
            "3:17: 99 is out of range: expected a whole number from 200 to 599",
            "4:1: a route has one content: `files` cannot stand beside `respond` on line 3",
            "4:13: `none`: no such folder",
            "5:5: a route has one content: `lua.content` cannot stand beside `respond` on line 3",
            "6:1: a route needs `path`, `regex` or `name`",
            "7:8: `vm` chooses who runs Lua",
            "8:7: `app` is not a URL, and groups of peers",
        ],
    ),
    (
        "[[route]]\n",
        &["1:1: a route needs `path`, `regex` or `name`"],
    ),
    (
        "[[route]]\npath = 5\n",
        &["2:8: expected a string, found a whole number"],
    ),
    (
        "[[route]]\nname='a'\nhost='x.y'\n[[route]]\nname='a'\n[[route]]\nname='@b'\n[[route]]\npath='/'\nerror_page={404='@aa',99='/x',500='x'}\n",
        &[
            "3:1: `host` means nothing on a route that is reached by name only",
            "5:6: the route on line 1 has the name `a` already",
            "7:6: a name is written without `@` here: \"b\"",
            "10:17: there is no route named `@aa`: did you mean `@a`?",
            "10:23: `99` is not a status of an error",
            "10:35: `x` is not a page",
        ],
    ),
    (
        "[[route]]\npath='a'\n[[route]]\npath='/a*b'\n[[route]]\nregex='(a'\n[[route]]\npath='/x'\nfinal=true\n[[route]]\nhost='a:80'\npath='/'\n[[route]]\npath='/'\nregex='x'\n",
        &[
            "2:6: `a` is not a path: a path begins with `/`, like \"/a\"",
            "4:6: `/a*b` is not a path: `*` stands only at the end",
            "6:7: the regular expression does not compile: unclosed group",
            "8:6: `final` is for a prefix",
            "11:6: `a:80` is not a host: a route's host has no port",
            "15:7: a route has `path` or `regex`, not both",
        ],
    ),
    (
        "[[route]]\npath='/'\n[[route]]\npath='/'\nmethods=['GET']\n[[route]]\npath='/'\nmethods=['POST','HEAD']\n[[route]]\npath='/'\n[[route]]\npath='/b'\nmethods=['get','PUT','PUT']\n",
        &[
            "7:6: the route on line 3 has this path and method already",
            "10:6: the route on line 1 has this path already",
            "13:10: `get` is not a method: methods are in capitals; write \"GET\"",
            "13:22: `PUT` is in this list twice",
        ],
    ),
    (
        "[server]\nplugins=['b','nope']\n[plugin.b]\ncomponent='bundled:b'\n[[route]]\npath='/'\nplugins=['b']\nlua.content={file='none.lua'}\nset={'a-b'='x',c={},d={lua='x',vm='b'}}\n",
        &[
            "2:14: there is no plugin `nope`: add [plugin.nope]",
            "7:10: `b` runs on every route already: [server] names it",
            "8:13: cannot read the Lua file none.lua: No such file",
            "9:6: `a-b` is not a variable's name",
            "9:18: expected a string, { lua = \"return …\" } or { plugin = \"NAME\" }",
            "9:35: `b` does not run Lua",
        ],
    ),
    (
        "[[route]]\npath='/'\nlua.acess='x'\n",
        &["3:5: unknown key `acess`: did you mean `access`?"],
    ),
    (
        "[[route]]\npath='/'\nrespond={headers={'a b'='x',b=\"x\\ny\"},body='${NOPE}'}\n",
        &[
            "3:19: `a b` is not a header's name",
            "3:31: a header's value is one line",
            "3:44: the environment variable `NOPE` is not set: set it, or write `$${NOPE}`",
        ],
    ),
];

#[test]
fn every_fault_is_told_at_its_place() {
    let mut wrong = String::new();
    for (document, expected) in CASES {
        let found = brief(document);
        let same = found.len() == expected.len()
            && found
                .iter()
                .zip(*expected)
                .all(|(found, expected)| found.starts_with(expected));
        if !same {
            wrong += &format!("--- {document}\nfound: {found:#?}\nexpected: {expected:#?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was cut out or typed over, the answer is a value and never a panic.
    #[test]
    fn a_damaged_file_is_an_answer(at in any::<usize>(), length in 0..40_usize, put in "[\\[\\]{}='\"$é\n a1.]{0,3}") {
        let start = at % EXAMPLE.len();
        let end = (start + length).min(EXAMPLE.len());
        let text = format!("{}{put}{}", &EXAMPLE[..start], &EXAMPLE[end..]);
        if let Err(diagnostics) = Config::parse_with(&text, Path::new("none/phasor.toml"), &|_| None) {
            assert!(!diagnostics.0.is_empty());
            assert!(diagnostics.to_string().contains("error: "));
        }
    }
}
