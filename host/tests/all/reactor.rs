//! The reactor's protocol stands in three places: its document, the host, the Lua runtime. Numbers that
//! differ would be found by no compiler.

use std::collections::BTreeMap;
use std::fs;

use regex::Regex;

use crate::harness::root;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The records of a direction: name to kind, as the document's table has them.
fn documented(document: &str, heading: &str) -> BTreeMap<String, u32> {
    let section = document.split(&format!("## {heading}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let row = Regex::new(r"(?m)^\| (\d+) \| (\w+) \|").unwrap();
    let rows: BTreeMap<_, _> = row
        .captures_iter(section)
        .map(|found| (found[2].to_uppercase(), found[1].parse().unwrap()))
        .collect();
    assert!(rows.len() >= 6, "{heading}: {rows:?}");
    rows
}

/// The constants of a source that stand inside this block: name to number.
fn constants(source: &str, block: &str) -> BTreeMap<String, u32> {
    let text = match block {
        "" => source.to_owned(),
        block => {
            let inside = source.split(&format!("{block} {{")).nth(1);
            let inside = inside.unwrap_or_else(|| panic!("no `{block}`"));
            inside.split("\n}").next().unwrap().to_owned()
        }
    };
    let constant = Regex::new(r"(?m)^\s*(?:pub(?:\([^)]*\))? )?const (\w+): u8 = (\d+);").unwrap();
    constant
        .captures_iter(&text)
        .map(|found| (found[1].to_owned(), found[2].parse().unwrap()))
        .collect()
}

const HOST: &str = "host/src/reactor/record.rs";
const GUEST: &str = "plugins/lua/src/wire.rs";

#[test]
fn kinds_of_records() {
    let document = read("docs/reactor.md");
    let (host, guest) = (read(HOST), read(GUEST));
    let to_guest = documented(&document, "Host to guest");
    assert_eq!(constants(&host, "mod to_guest"), to_guest, "{HOST}");
    assert_eq!(constants(&guest, "mod from_host"), to_guest, "{GUEST}");
    let to_host = documented(&document, "Guest to host");
    assert_eq!(constants(&host, "mod from_guest"), to_host, "{HOST}");
    // They stand beside the flags there.
    let mut own = constants(&guest, "");
    own.retain(|name, _| to_host.contains_key(name));
    // `chunk` is a record of both directions; the last one in the file is the guest's own.
    assert_eq!(own, to_host, "{GUEST}");
}

#[test]
fn flags() {
    // What the document says of a flag, its name in the host, its name in the guest.
    let flags = [
        ("1 = the job is new", "NEW", "RUN_NEW"),
        ("2 = the host holds a status", "HEAD", "RUN_HOST_HEAD"),
        (
            "4 = the answer's head has been sent",
            "SENT",
            "RUN_HEAD_SENT",
        ),
        ("8 = it is a subrequest", "INNER", "RUN_INNER"),
        (
            "16 = it is not as a client sent it",
            "INTERNAL",
            "RUN_INTERNAL",
        ),
        ("flag 1 = the body ends here", "BODY_ENDS", "BODY_ENDS"),
        (
            "2 = the handler has ended too",
            "HANDLER_ENDS",
            "HANDLER_ENDED",
        ),
        ("4 = tell me when drained", "TELL_DRAINED", "TELL_DRAINED"),
        (
            "8 = the filters of this segment have run",
            "FILTERED",
            "FILTERED",
        ),
    ];
    let document = read("docs/reactor.md");
    let (host, guest) = (constants(&read(HOST), ""), constants(&read(GUEST), ""));
    for (text, in_host, in_guest) in flags {
        assert!(document.contains(text), "the document lost \"{text}\"");
        let number = text.trim_start_matches("flag ").split(' ').next();
        let number: u32 = number.unwrap().parse().unwrap();
        assert_eq!(host.get(in_host), Some(&number), "{HOST}: {in_host}");
        assert_eq!(guest.get(in_guest), Some(&number), "{GUEST}: {in_guest}");
    }
}
