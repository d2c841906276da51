//! Static files: what a client asks, what it gets; and the ways out of a root that must be shut.

use std::fs;
use std::os::unix::fs::symlink;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tempfile::TempDir;

use super::path::relative;
use super::range::{Asked, ByteRange, parse};
use super::{Answer, Body, Metadata, Outcome, Piece, READ_BYTES, Root, decide, decode_path, open};

const FILE: Metadata = Metadata {
    size: 1000,
    modified: 1_795_467_600,
};
const DATE: &str = "Mon, 23 Nov 2026 21:00:00 GMT";
const EARLIER: &str = "Mon, 23 Nov 2026 20:59:59 GMT";

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |&(name, value): &(&'static str, &str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )
    };
    list.iter().map(pair).collect()
}

fn ask(list: &[(&'static str, &str)]) -> Answer {
    decide(&Method::GET, &headers(list), &FILE, "text/plain")
}

#[test]
fn a_plain_request_gets_the_whole() {
    let answer = ask(&[]);
    assert_eq!(
        (answer.status, answer.pieces),
        (
            200,
            vec![Piece::Range {
                start: 0,
                length: 1000
            }]
        )
    );
    let expected = headers(&[
        ("last-modified", DATE),
        ("etag", &FILE.etag()),
        ("accept-ranges", "bytes"),
        ("content-type", "text/plain"),
        ("content-length", "1000"),
    ]);
    assert_eq!(answer.headers, expected);
    let head = decide(&Method::HEAD, &HeaderMap::new(), &FILE, "text/plain");
    assert_eq!(
        (head.status, head.headers, head.pieces),
        (200, expected, vec![])
    );
}

#[test]
fn conditions_are_weighed_in_the_order_of_the_rfc() {
    let tag = FILE.etag();
    assert_eq!(tag, format!("\"{:x}-{:x}\"", FILE.modified, FILE.size));
    let weak = format!("\"x\", W/{tag}");
    let cases: &[(&[(&'static str, &str)], u16)] = &[
        (&[("if-none-match", &tag)], 304),
        (&[("if-none-match", &weak)], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", "\"x\"")], 200),
        (
            &[("if-none-match", "\"x\""), ("if-modified-since", DATE)],
            200,
        ),
        (&[("if-modified-since", DATE)], 304),
        (&[("if-modified-since", EARLIER)], 200),
        (&[("if-modified-since", "yesterday")], 200),
        (&[("if-match", &tag)], 200),
        (&[("if-match", "*")], 200),
        (&[("if-match", &weak)], 412),
        (&[("if-match", "\"x\"")], 412),
        (&[("if-match", &tag), ("if-unmodified-since", EARLIER)], 200),
        (&[("if-unmodified-since", EARLIER)], 412),
        (
            &[("if-unmodified-since", DATE), ("if-none-match", &tag)],
            304,
        ),
        (&[("range", "bytes=0-0"), ("if-none-match", &tag)], 304),
        (&[("range", "bytes=0-0"), ("if-range", &tag)], 206),
        (&[("range", "bytes=0-0"), ("if-range", DATE)], 206),
        (&[("range", "bytes=0-0"), ("if-range", EARLIER)], 200),
        (&[("range", "bytes=0-0"), ("if-range", "\"x\"")], 200),
        (&[("range", "bytes=5000-")], 416),
    ];
    for (request, status) in cases {
        assert_eq!(ask(request).status, *status, "{request:?}");
    }
    assert!(
        !ask(&[("if-none-match", &tag)])
            .headers
            .contains_key("content-length")
    );
    assert_eq!(
        ask(&[("range", "bytes=5000-")]).headers,
        headers(&[("content-range", "bytes */1000")])
    );
}

#[test]
fn ranges_have_many_forms() {
    let part = |start, length| ByteRange { start, length };
    let cases: &[(&str, Asked)] = &[
        ("bytes=0-9", Asked::Parts(vec![part(0, 10)])),
        ("BYTES = 0-9", Asked::Whole),
        ("Bytes=990-2000", Asked::Parts(vec![part(990, 10)])),
        ("bytes=990-", Asked::Parts(vec![part(990, 10)])),
        ("bytes=-10", Asked::Parts(vec![part(990, 10)])),
        ("bytes=-5000", Asked::Parts(vec![part(0, 1000)])),
        ("bytes=-0", Asked::Nothing),
        ("bytes=1000-", Asked::Nothing),
        ("bytes=5-4", Asked::Nothing),
        ("bytes=a-4", Asked::Nothing),
        ("bytes=4", Asked::Nothing),
        ("bytes=", Asked::Nothing),
        ("lines=1-2", Asked::Whole),
        (
            "bytes=0-0, 5-6 ,,-1",
            Asked::Parts(vec![part(0, 1), part(5, 2), part(999, 1)]),
        ),
        ("bytes=0-0,5000-", Asked::Parts(vec![part(0, 1)])),
        ("bytes=0-,0-", Asked::Whole),
        (
            "bytes=0-99999999999999999999999999",
            Asked::Parts(vec![part(0, 1000)]),
        ),
    ];
    for (header, asked) in cases {
        assert_eq!(parse(header.as_bytes(), 1000), *asked, "{header}");
    }
    assert_eq!(parse(b"bytes=0-", 0), Asked::Nothing);
    let many = format!(
        "bytes={}",
        (0..65)
            .map(|at| format!("{at}-{at}"))
            .collect::<Vec<_>>()
            .join(",")
    );
    assert_eq!(parse(many.as_bytes(), 1000), Asked::Whole);
}

#[test]
fn several_ranges_are_one_multipart_body() {
    let answer = ask(&[("range", "bytes=0-1,998-")]);
    let kind = answer.headers["content-type"].to_str().unwrap();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let text = |text: String| Piece::Text(Bytes::from(text));
    let head = |range: &str| {
        text(format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/1000\r\n\r\n"
        ))
    };
    let expected = vec![
        head("0-1"),
        Piece::Range {
            start: 0,
            length: 2,
        },
        head("998-999"),
        Piece::Range {
            start: 998,
            length: 2,
        },
        text(format!("\r\n--{boundary}--\r\n")),
    ];
    let length: u64 = expected.iter().map(Piece::len).sum();
    assert_eq!(answer.headers["content-length"], length.to_string());
    assert_eq!((answer.status, answer.pieces), (206, expected));
}

#[test]
fn paths_never_lead_out() {
    let cases: &[(&str, Option<(&str, bool)>)] = &[
        ("/", Some(("", true))),
        ("", Some(("", true))),
        ("/a/b", Some(("a/b", false))),
        ("//a///b/", Some(("a/b", true))),
        ("/a/./b/..", Some(("a", true))),
        ("/a/../b", Some(("b", false))),
        ("/..", None),
        ("/a/../../b", None),
        ("/...", Some(("...", false))),
    ];
    for (decoded, expected) in cases {
        let found = relative(decoded.as_bytes()).map(|found| (found.path, found.is_folder));
        assert_eq!(
            found,
            expected.map(|(path, is_folder)| (path.into(), is_folder)),
            "{decoded}"
        );
    }
    assert_eq!(decode_path(b"/a%20b%2f"), Some(b"/a b/".to_vec()));
    for bad in ["%", "%2", "%zz", "/%00", "/a%"] {
        assert_eq!(decode_path(bad.as_bytes()), None, "{bad}");
    }
}

fn site() -> (TempDir, Root) {
    let folder = tempfile::tempdir().unwrap();
    let www = folder.path().join("www");
    fs::create_dir_all(www.join("docs/empty")).unwrap();
    fs::write(www.join("index.html"), "home").unwrap();
    fs::write(www.join("docs/a b.txt"), "text").unwrap();
    fs::write(www.join("docs/zero"), "").unwrap();
    fs::write(
        www.join("large.bin"),
        (0..200_000).map(|at| (at % 251) as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    symlink("../secret", www.join("out")).unwrap();
    symlink("/etc", www.join("etc")).unwrap();
    symlink("docs", www.join("in")).unwrap();
    symlink(www.join("docs"), www.join("absolute")).unwrap();
    symlink("loop", www.join("loop")).unwrap();
    let root = Root::new(&www, vec!["index.html".to_owned()], false).unwrap();
    (folder, root)
}

async fn get(root: &Root, path: &str) -> Outcome {
    open(root, path.as_bytes(), &Method::GET, &HeaderMap::new()).await
}

async fn text(outcome: Outcome) -> Vec<u8> {
    match outcome.body {
        Body::Empty | Body::ErrorPage => Vec::new(),
        Body::Bytes(bytes) => bytes.to_vec(),
        Body::File(mut file) => {
            let announced = file.remaining();
            let mut all = Vec::new();
            while let Some(chunk) = file.next().await.unwrap() {
                assert!(!chunk.is_empty() && chunk.len() <= READ_BYTES);
                all.extend_from_slice(&chunk);
            }
            assert_eq!(announced, all.len() as u64);
            all
        }
    }
}

#[tokio::test]
async fn paths_have_the_status_of_nginx() {
    let (_folder, root) = site();
    let cases = [
        ("/", 200),
        ("/index.html", 200),
        ("/index.html?x=1", 200),
        ("/docs/a%20b.txt", 200),
        ("/docs/zero", 200),
        ("/in/zero", 200),
        ("/absolute/zero", 200),
        ("/docs", 301),
        ("/docs/", 403),
        ("/docs/empty/../zero", 200),
        ("/none", 404),
        ("/none/", 404),
        ("/index.html/", 404),
        ("/index.html/x", 404),
        ("/loop", 404),
        ("/out", 403),
        ("/etc/passwd", 403),
        ("/in/../../secret", 400),
        ("/%2e%2e/secret", 400),
        ("/..%2fsecret", 400),
        ("/a%00b", 400),
    ];
    for (path, status) in cases {
        assert_eq!(get(&root, path).await.status, status, "{path}");
    }
    let long = format!("/{}", "x".repeat(5000));
    assert_eq!(get(&root, &long).await.status, 404);
    assert_eq!(get(&root, "//docs").await.headers["location"], "/docs/");
    let post = open(&root, b"/", &Method::POST, &HeaderMap::new()).await;
    assert_eq!(
        (post.status, post.headers["allow"].to_str().unwrap()),
        (405, "GET, HEAD")
    );
}

#[tokio::test]
async fn contents_come_in_pieces() {
    let (folder, root) = site();
    assert_eq!(text(get(&root, "/").await).await, b"home");
    assert_eq!(text(get(&root, "/docs/zero").await).await, b"");
    let large = fs::read(folder.path().join("www/large.bin")).unwrap();
    let whole = get(&root, "/large.bin").await;
    assert_eq!(whole.headers["content-type"], "application/octet-stream");
    assert_eq!(whole.headers["content-length"], "200000");
    assert_eq!(text(whole).await, large);
    let part = headers(&[("range", "bytes=65530-150000")]);
    let part = open(&root, b"/large.bin", &Method::GET, &part).await;
    assert_eq!(part.headers["content-range"], "bytes 65530-150000/200000");
    assert_eq!(
        (part.status, text(part).await),
        (206, large[65530..=150_000].to_vec())
    );
    let head = open(&root, b"/large.bin", &Method::HEAD, &HeaderMap::new()).await;
    assert_eq!(head.headers["content-length"], "200000");
    assert!(matches!(head.body, Body::Empty));
}

#[tokio::test]
async fn a_file_that_shrinks_is_an_error_not_a_short_answer() {
    let (folder, root) = site();
    let outcome = get(&root, "/large.bin").await;
    fs::write(folder.path().join("www/large.bin"), "short").unwrap();
    let Body::File(mut file) = outcome.body else {
        panic!("no file")
    };
    assert_eq!(file.next().await.unwrap().unwrap().len(), READ_BYTES);
    assert_eq!(
        file.next().await.unwrap_err().kind(),
        std::io::ErrorKind::UnexpectedEof
    );
}

#[tokio::test]
async fn folders_redirect_and_may_be_listed() {
    let (folder, _) = site();
    fs::write(folder.path().join("www/docs/<b>&.txt"), "").unwrap();
    fs::write(folder.path().join("www/docs/.hidden"), "").unwrap();
    let root = Root::new(&folder.path().join("www"), Vec::new(), true)
        .unwrap()
        .below(b"/static/");
    let redirect = get(&root, "/static/docs?x=1").await;
    assert_eq!(
        (
            redirect.status,
            redirect.headers["location"].to_str().unwrap()
        ),
        (301, "/static/docs/?x=1")
    );
    let doubled = get(&root, "/static//docs").await;
    assert_eq!(doubled.headers["location"], "/static/docs/");
    assert_eq!(get(&root, "/elsewhere/docs").await.status, 404);
    assert_eq!(get(&root, "/staticdocs").await.status, 404);
    let page = String::from_utf8(text(get(&root, "/static/docs/").await).await).unwrap();
    assert!(page.contains("<title>Index of /static/docs/</title>"));
    assert!(page.contains("<a href=\"empty/\">empty/</a>"));
    assert!(page.contains("<a href=\"a%20b.txt\">a b.txt</a>"));
    assert!(page.contains("<a href=\"%3Cb%3E&amp;.txt\">&lt;b&gt;&amp;.txt</a>"));
    assert!(!page.contains("hidden"));
}

#[test]
fn a_root_must_be_a_folder() {
    let (folder, _) = site();
    assert!(Root::new(&folder.path().join("none"), Vec::new(), false).is_err());
    assert!(Root::new(&folder.path().join("secret"), Vec::new(), false).is_err());
}
