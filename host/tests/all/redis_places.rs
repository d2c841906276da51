//! Where a Redis can be: behind a socket in the file system, behind TLS and a log-in, behind
//! sentinels, and in a cluster. Real servers, and what they do when they fail over.

use std::process::Command;

use regex::Regex;
use rustix::process::Signal;

use crate::client::get;
use crate::harness::{Folder, Server, free_port};
use crate::process::{PATIENCE, Process, have, run};
use crate::redis::{Redis, post, server_at, wait_until};
use crate::tls::Authority;

/// `redis-cli` to a port; what it prints.
fn cli(port: u16, arguments: &[&str]) -> String {
    let port = port.to_string();
    let (_, out, err) = run(Command::new("redis-cli")
        .args(["-p", &port])
        .args(arguments));
    format!("{out}{err}").trim().to_owned()
}

/// What every place can do: a value, a script, a transaction, several commands, a channel.
fn everything(server: &Server) {
    for (lua, expected) in [
        ("return main:set('k', 'v')", "OK"),
        ("return main:get('k')", "v"),
        (
            "return main:eval('return ARGV[1] .. KEYS[1]', {'k'}, {'a'})",
            "ak",
        ),
        (
            "return cjson.encode(main:transaction{{'set', '{t}a', 1}, {'incr', '{t}a'}, {'get', '{t}b'}})",
            "[\"OK\",2,null]",
        ),
        (
            "return cjson.encode(main:pipeline{{'set', 'a', 1}, {'set', 'b', 2}, {'ping'}, {'set', 'c', 3}})",
            r#"["OK","OK","PONG","OK"]"#,
        ),
        (
            "return main:get('a') .. main:get('b') .. main:get('c')",
            "123",
        ),
        (
            "local s = assert(main:subscribe('news')) main:publish('news', 'hello') return s:next().payload",
            "hello",
        ),
    ] {
        assert_eq!(post(server, lua), expected, "{lua}");
    }
}

#[test]
fn a_socket_in_the_file_system() {
    let folder = Folder::new();
    let socket = folder.path().join("redis.sock");
    let socket = socket.to_str().unwrap();
    let Some(_redis) = Redis::start(&["--port", "0", "--unixsocket", socket]) else {
        return;
    };
    let server = server_at(&format!("unix:{socket}?db=2"), "");
    everything(&server);
    // `keys` without a database would see those of 0.
    assert_eq!(
        post(&server, "return main:info('keyspace'):match('db%d')"),
        "db2"
    );
    server.stop(Signal::QUIT);
}

#[test]
fn tls_and_a_user() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let ca = authority.file(&folder);
    let own = authority.sign(&folder, "localhost");
    let port = free_port();
    let Some(_redis) = Redis::start(&[
        "--port",
        "0",
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        own.chain.to_str().unwrap(),
        "--tls-key-file",
        own.key.to_str().unwrap(),
        "--tls-auth-clients",
        "no",
        "--user",
        "ann",
        "on",
        ">secret",
        "~*",
        "&*",
        "+@all",
    ]) else {
        return;
    };
    let ca = format!("ca = \"{}\"", ca.display());
    let server = server_at(&format!("rediss://ann:secret@localhost:{port}/1"), &ca);
    everything(&server);
    server.stop(Signal::QUIT);
    for (url, more, expected) in [
        (
            format!("rediss://ann:no@localhost:{port}"),
            &ca,
            "WRONGPASS",
        ),
        (
            format!("rediss://ann:secret@127.0.0.1:{port}"),
            &ca,
            "not valid for name",
        ),
        (
            format!("rediss://ann:secret@localhost:{port}"),
            &String::new(),
            "UnknownIssuer",
        ),
        (
            format!("redis://ann:secret@localhost:{port}"),
            &String::new(),
            "localhost:",
        ),
    ] {
        let server = server_at(&url, more);
        let answer = post(&server, "return cjson.encode{main:set('k', 'v')}");
        assert!(answer.contains(expected), "{url}: {answer}");
        assert!(answer.starts_with("[null,"), "{url}: {answer}");
        server.stop(Signal::QUIT);
    }
}

/// A sentinel that looks after `main`. It looks often, and does not take a busy machine for a clock
/// that jumps: by its own defaults it would then do nothing for half a minute.
fn sentinel(folder: &Folder, port: u16, master: u16) -> Process {
    let config = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 1\n\
         sentinel down-after-milliseconds main 2000\nsentinel failover-timeout main 20000\n"
    );
    let file = folder.write("sentinel.conf", config);
    let mut command = Command::new("redis-server");
    command
        .arg(file)
        .arg("--sentinel")
        .current_dir(folder.path());
    let process = Process::start(command);
    let ready = Regex::new("Sentinel ID is").unwrap();
    let started = process.stdout.wait_for(&ready, 0, PATIENCE);
    assert!(started.is_some(), "{}", process.stdout.since(0));
    let often = [
        &["sentinel", "debug"][..],
        &["tilt-trigger", "60000", "info-period", "200"],
        &["publish-period", "200"],
    ];
    assert_eq!(cli(port, &often.concat()), "OK");
    process
}

/// A field of what a sentinel says of `main`.
fn said(sentinel: u16, field: &str) -> String {
    let all = cli(sentinel, &["sentinel", "master", "main"]);
    let mut lines = all.lines();
    while let (Some(name), Some(value)) = (lines.next(), lines.next()) {
        if name == field {
            return value.to_owned();
        }
    }
    panic!("no `{field}` in {all}");
}

/// Waits until a sentinel names `next` the master, and asks for that whenever it does nothing: what
/// it began on its own it gives up on a busy machine now and then, and waits before it tries again.
fn wait_failover(sentinel: u16, next: u16) {
    wait_until(|| {
        let (port, flags) = (said(sentinel, "port"), said(sentinel, "flags"));
        let idle = !flags.contains("failover_in_progress");
        if idle && port != next.to_string() {
            cli(sentinel, &["sentinel", "failover", "main"]);
        }
        idle && port == next.to_string()
    });
}

#[test]
fn sentinels_name_the_master_and_the_next_one() {
    let Some(mut master) = Redis::start(&[]) else {
        return;
    };
    let of = format!("127.0.0.1 {}", master.port);
    let replica = Redis::start(&["--replicaof", &of, "--repl-diskless-sync-delay", "0"]).unwrap();
    let (folder, port) = (Folder::new(), free_port());
    let _sentinel = sentinel(&folder, port, master.port);
    let nobody = free_port();
    let server = server_at(
        &format!("redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{port}/main"),
        "breaker = { failures = 3, pause = \"100ms\" }",
    );
    everything(&server);
    let whose = "return main:info('server'):match('tcp_port:(%d+)')";
    assert_eq!(post(&server, whose), master.port.to_string());
    wait_until(|| cli(replica.port, &["info", "replication"]).contains("master_link_status:up"));
    wait_until(|| cli(port, &["sentinel", "replicas", "main"]).contains(&replica.port.to_string()));
    // The master dies; the sentinels make the replica the next one, and the client follows.
    let mark = server.mark();
    master.kill();
    let set = "local ok, e = main:set('k', 'after') return ok or e";
    wait_until(|| post(&server, set).contains("breaker is open"));
    wait_until(|| said(port, "flags").contains("s_down"));
    wait_failover(port, replica.port);
    wait_until(|| post(&server, set) == "OK");
    assert_eq!(post(&server, whose), replica.port.to_string());
    server.wait_log("redis `main`: back, the breaker closes", mark);
    // It comes back as a replica and nobody writes to it.
    master.run();
    wait_until(|| cli(master.port, &["role"]).starts_with("slave"));
    assert_eq!(post(&server, whose), replica.port.to_string());
    // A failover that an operator asks for, while the connection is in use.
    wait_until(|| cli(master.port, &["info", "replication"]).contains("master_link_status:up"));
    wait_failover(port, master.port);
    wait_until(|| post(&server, whose) == master.port.to_string());
    wait_until(|| post(&server, set) == "OK");
    server.stop(Signal::QUIT);
}

#[test]
fn a_master_that_nobody_knows() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let (folder, port) = (Folder::new(), free_port());
    let _sentinel = sentinel(&folder, port, redis.port);
    let server = server_at(&format!("redis+sentinel://127.0.0.1:{port}/other"), "");
    let answer = post(&server, "return cjson.encode{main:get('k')}");
    assert!(answer.contains("knows no master `other`"), "{answer}");
    server.stop(Signal::QUIT);
}

/// Three nodes of one cluster, the slots in three parts; more nodes have none yet.
fn cluster(count: usize, arguments: &[&str]) -> Option<Vec<Redis>> {
    let mut nodes = Vec::new();
    let mut buses = Vec::new();
    for _ in 0..count {
        buses.push(free_port().to_string());
        let bus = buses.last().unwrap().as_str();
        let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"];
        let all = [&own[..], &["--cluster-port", bus], arguments].concat();
        nodes.push(Redis::start(&all)?);
    }
    let first = nodes[0].port;
    for (node, (from, to)) in nodes.iter().zip([(0, 5460), (5461, 10922), (10923, 16383)]) {
        let (from, to) = (from.to_string(), to.to_string());
        assert_eq!(
            cli(node.port, &["cluster", "addslotsrange", &from, &to]),
            "OK"
        );
    }
    for (node, bus) in nodes.iter().zip(&buses).skip(1) {
        let port = node.port.to_string();
        assert_eq!(
            cli(first, &["cluster", "meet", "127.0.0.1", &port, bus]),
            "OK"
        );
    }
    for node in &nodes {
        let known = format!("cluster_known_nodes:{count}\r");
        wait_until(|| {
            let info = cli(node.port, &["cluster", "info"]);
            info.contains("cluster_state:ok") && info.contains(&known)
        });
    }
    Some(nodes)
}

fn id(node: &Redis) -> String {
    cli(node.port, &["cluster", "myid"])
}

/// Moves a slot with its keys, as `redis-cli --cluster reshard` does; `done` is what is left out to
/// stop half-way.
fn move_slot(slot: u16, from: &Redis, to: &Redis, done: bool) {
    let slot = slot.to_string();
    let (source, target) = (id(from), id(to));
    let set = |node: &Redis, how: &[&str]| {
        let all = [&["cluster", "setslot", &slot], how].concat();
        assert_eq!(cli(node.port, &all), "OK");
    };
    set(to, &["importing", &source]);
    set(from, &["migrating", &target]);
    let keys = cli(from.port, &["cluster", "getkeysinslot", &slot, "100"]);
    for key in keys.lines().filter(|key| !key.is_empty()) {
        let port = to.port.to_string();
        assert_eq!(
            cli(
                from.port,
                &["migrate", "127.0.0.1", &port, key, "0", "5000"]
            ),
            "OK"
        );
    }
    if done {
        set(to, &["node", &target]);
        set(from, &["node", &target]);
    }
}

#[test]
fn a_cluster_spreads_keys_and_moves_slots() {
    let Some(nodes) = cluster(3, &[]) else {
        return;
    };
    let nobody = free_port();
    let url = format!(
        "redis+cluster://127.0.0.1:{nobody},127.0.0.1:{}",
        nodes[0].port
    );
    let server = server_at(&url, "");
    everything(&server);
    let lua = "for i = 1, 300 do assert(main:set('key' .. i, i)) end \
               local sum = 0 for i = 1, 300 do sum = sum + main:get('key' .. i) end return sum";
    assert_eq!(post(&server, lua), "45150");
    for node in &nodes {
        let size: u32 = cli(node.port, &["dbsize"]).parse().unwrap();
        assert!(size > 50, "node {} has {size} keys", node.port);
    }
    // A pipeline across all nodes keeps the order of its replies.
    let lua = "local p = {} for i = 1, 300 do p[i] = {'get', 'key' .. i} end p[301] = {'lpush', 'key1', 1} \
               local r = main:pipeline(p) for i = 1, 300 do assert(r[i] == tostring(i)) end return r[301][2]";
    assert!(post(&server, lua).starts_with("WRONGTYPE"));
    for lua in [
        "return cjson.encode{main:mset('a', 1, 'b', 2)}",
        "return cjson.encode{main:transaction{{'set', 'a', 1}, {'set', 'b', 2}}}",
        "return cjson.encode{main:eval('return 1', {'a', 'b'}, {})}",
    ] {
        let answer = post(&server, lua);
        assert!(answer.contains("\"CROSSSLOT"), "{lua}: {answer}");
    }
    // Streams, whose keys stand behind a word; and a command that nobody knows the keys of.
    let lua = "main:xadd('{s}', '*', 'f', 'v') return main:xread('STREAMS', '{s}', '0')['{s}'] ~= nil \
               or cjson.encode(main:xread('STREAMS', '{s}', '0'))";
    assert!(post(&server, lua).contains("{s}") || post(&server, lua) == "true");
    for i in 1..20 {
        let lua = format!("return main:memory('usage', 'key{i}') > 0");
        assert_eq!(post(&server, &lua), "true", "{i}");
    }

    // The slot of `k` is 7629: it moves from the second node to the third, keys and all.
    assert_eq!(cli(nodes[0].port, &["cluster", "keyslot", "k"]), "7629");
    move_slot(7629, &nodes[1], &nodes[2], true);
    let moved = "local old = main:get('k') main:set('k', 'w') return old .. main:get('k')";
    assert_eq!(post(&server, moved), "vw");
    let transaction = "return cjson.encode(main:transaction{{'set', 'k', 1}, {'incr', 'k'}})";
    assert_eq!(post(&server, transaction), r#"["OK",2]"#);
    // On its way to the first node: what is not there any more is asked of the other.
    move_slot(7629, &nodes[2], &nodes[0], false);
    assert_eq!(post(&server, "return main:get('k')"), "2");
    assert_eq!(post(&server, "return main:set('{k}new', 'x')"), "OK");
    assert_eq!(
        post(
            &server,
            "return main:pipeline{{'get', 'a'}, {'get', '{k}new'}}[2]"
        ),
        "x"
    );
    assert_eq!(
        cli(nodes[0].port, &["cluster", "countkeysinslot", "7629"]),
        "2"
    );
    server.stop(Signal::QUIT);
}

#[test]
fn a_clusters_node_dies_and_its_replica_takes_over() {
    let Some(mut nodes) = cluster(4, &["--cluster-replica-validity-factor", "0"]) else {
        return;
    };
    let replica = nodes.pop().unwrap();
    let second = id(&nodes[1]);
    wait_until(|| cli(replica.port, &["cluster", "replicate", &second]) == "OK");
    wait_until(|| cli(replica.port, &["info", "replication"]).contains("master_link_status:up"));
    let server = server_at(
        &format!("redis+cluster://127.0.0.1:{}", nodes[0].port),
        "breaker = { failures = 3, pause = \"100ms\" }\ntimeout = \"5s\"",
    );
    // `k` is the second node's, `b` the first one's.
    assert_eq!(
        post(&server, "return main:set('k', 'v') .. main:set('b', 'w')"),
        "OKOK"
    );
    wait_until(|| cli(replica.port, &["dbsize"]) == "1");
    let mark = server.mark();
    nodes[1].kill();
    let get = "local v, e = main:get('k') return v == ngx.null and 'null' or v or e";
    wait_until(|| {
        // The others go on as if nothing had happened, until the cluster itself says that it is down.
        let other = post(&server, "local v, e = main:get('b') return v or e");
        assert!(other == "w" || other.starts_with("CLUSTERDOWN"), "{other}");
        post(&server, get) == "v"
    });
    server.wait_log(
        &format!(
            "redis `main`, node 127.0.0.1:{}: away, the breaker opens",
            nodes[1].port
        ),
        mark,
    );
    assert_eq!(post(&server, "return main:set('k', 'x')"), "OK");
    assert_eq!(cli(replica.port, &["get", "k"]), "x");
    server.stop(Signal::QUIT);
}

#[test]
fn a_cluster_that_is_not_there() {
    let url = format!("redis+cluster://127.0.0.1:{}", free_port());
    let server = server_at(&url, "breaker = { failures = 2, pause = \"10s\" }");
    let get = "return cjson.encode{main:get('k')}";
    assert!(post(&server, get).contains("refused"));
    wait_until(|| post(&server, get).contains("breaker is open"));
    server.stop(Signal::QUIT);
    if !have("redis-server") {
        return;
    }
    // A server that is none.
    let redis = Redis::start(&[]).unwrap();
    let server = server_at(&format!("redis+cluster://127.0.0.1:{}", redis.port), "");
    let answer = post(&server, get);
    assert!(answer.contains("cluster support disabled"), "{answer}");
    assert_eq!(get_status(&server), 200);
    server.stop(Signal::QUIT);
}

fn get_status(server: &Server) -> u16 {
    get(server.port(), "/alive").status
}
