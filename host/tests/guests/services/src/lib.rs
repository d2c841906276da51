//! Redis and HTTP from a component, one after the other and several at once; the path says what.

use phasor_plugin::{Answer, Request, http_client, redis, subrequest, task};
use std::time::Duration;

fn origin(request: &Request) -> String {
    let origin = request.header("x-origin").unwrap_or_default();
    String::from_utf8_lossy(&origin).into_owned()
}

#[phasor_plugin::content]
async fn content(request: &Request) -> Answer {
    let uri = request.uri();
    let path = uri.split('?').next().unwrap_or("");
    // One of the benchmarks: nothing is asked of the host that it does not need.
    if path == "/get" {
        return Answer::text(match redis::get("main", "k").await {
            Ok(value) => String::from_utf8_lossy(&value.unwrap_or_default()).into_owned(),
            Err(error) => format!("{error:?}"),
        });
    }
    let origin = origin(request);
    Answer::text(match path {
        "/redis" => redis_commands().await,
        "/both" => {
            let (one, two) = task::join(redis::get("main", "one"), redis::get("main", "two")).await;
            format!("{one:?} {two:?}")
        }
        "/denied" => format!("{:?}", redis::command("main", &["FLUSHALL"]).wait()),
        "/nested" => format!("{:?}", task::block_on(redis::get("main", "one"))),
        "/fetch" => match http_client::get(&format!("{origin}/hello")).send().await {
            Ok(answer) => format!(
                "{} {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            ),
            Err(error) => format!("{error:?}"),
        },
        "/post" => {
            let post = http_client::post(&format!("{origin}/echo"), "a body");
            match post.header("x-mine", "1").send().wait() {
                Ok(answer) => String::from_utf8_lossy(&answer.body).into_owned(),
                Err(error) => format!("{error:?}"),
            }
        }
        "/big" => format!(
            "{:?}",
            http_client::get(&format!("{origin}/big"))
                .limit(1000)
                .send()
                .await
                .err()
        ),
        "/stream" => stream(&format!("{origin}/big")).await,
        "/upload" => upload(&format!("{origin}/upload")).await,
        "/late" => {
            let slow = http_client::get(&format!("{origin}/slow")).send();
            format!(
                "{:?}",
                task::deadline(Duration::from_millis(100), slow).await.err()
            )
        }
        "/timeout" => {
            let slow =
                http_client::get(&format!("{origin}/slow")).timeout(Duration::from_millis(100));
            format!("{:?}", slow.send().await.err())
        }
        "/inner" => inner().await,
        "/barred/inner" => format!("{:?}", subrequest::get("/inner/../leaf?x").send().await),
        "/first" => {
            let ask = |path: &str| http_client::get(&format!("{origin}{path}")).send();
            match task::select(vec![ask("/slow"), ask("/hello"), ask("/slow")]).await {
                Some((place, Ok(answer))) => format!("{place} {}", answer.status),
                other => format!("{other:?}"),
            }
        }
        _ => "what?".to_owned(),
    })
}

async fn redis_commands() -> String {
    let set = redis::command("main", &["SET", "one", "1"]).await;
    let wrong = redis::command("main", &["LPUSH", "one", "1"]).await;
    let script = redis::eval("main", "return {KEYS[1], {1, 2}}", &["k"], &["a"]).await;
    let many = redis::pipeline(
        "main",
        &[
            vec![b"INCR".to_vec(), b"n".to_vec()],
            vec![b"GET".to_vec(), b"none".to_vec()],
        ],
    );
    format!("{set:?} {wrong:?} {script:?} {:?}", many.await)
}

async fn stream(url: &str) -> String {
    let answer = match http_client::get(url).open().await {
        Ok(answer) => answer,
        Err(error) => return format!("{error:?}"),
    };
    let mut length = 0;
    while let Ok(Some(piece)) = answer.read().await {
        length += piece.len();
    }
    format!("{} {length}", answer.status)
}

/// Eight pieces of 128 KiB, one after the other.
async fn upload(url: &str) -> String {
    let upload = match http_client::post(url, "begin").upload() {
        Ok(upload) => upload,
        Err(error) => return format!("{error:?}"),
    };
    for _ in 0..8 {
        match upload.write(vec![b'x'; 128 << 10]).await {
            Ok(true) => {}
            other => return format!("{other:?}"),
        }
    }
    match upload.finish().await {
        Ok(answer) => match answer.read().await {
            Ok(piece) => String::from_utf8_lossy(&piece.unwrap_or_default()).into_owned(),
            Err(error) => format!("{error:?}"),
        },
        Err(error) => format!("{error:?}"),
    }
}

async fn inner() -> String {
    let (one, two) = task::join(
        subrequest::get("/leaf?n=1").header("x-which", "one").send(),
        subrequest::request("POST", "@leaf").body("two").send(),
    )
    .await;
    let mut text = String::new();
    for answer in [one, two] {
        match answer {
            Ok(answer) => {
                let body = String::from_utf8_lossy(&answer.body);
                text.push_str(&format!("{} {body} {}; ", answer.status, answer.truncated));
            }
            Err(error) => text.push_str(&format!("{error:?}; ")),
        }
    }
    let none = subrequest::get("not a path").send().await;
    format!("{text}{:?} {}", none.err(), subrequest::depth())
}
