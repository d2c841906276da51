//! The tiered cache from a component: the path says what is done, the query gives the key and more.

use std::time::Duration;

use phasor_plugin::cache::{self, Answers, Cache, CacheError, Fresh, Options};
use phasor_plugin::{Answer, Request, shared_dict::Dict, time, timers};

thread_local!(static CACHE: Result<Cache<String>, CacheError> = Cache::open("things"));

fn argument<'u>(uri: &'u str, name: &str) -> Option<&'u str> {
    let (_, query) = uri.split_once('?')?;
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(own, value)| (own == name).then_some(value))
}

fn millis(uri: &str, name: &str) -> Option<Duration> {
    let number = argument(uri, name)?.parse().ok()?;
    Some(Duration::from_millis(number))
}

/// How often the source was asked, in the whole process.
fn count_call() -> f64 {
    let Ok(calls) = Dict::open("calls") else {
        return 0.0;
    };
    calls.incr("n", 1.0, Some(0.0)).unwrap_or(0.0)
}

fn source(uri: &str) -> Result<Fresh<String>, String> {
    let call = count_call();
    if let Some(time) = millis(uri, "slow") {
        timers::sleep(time);
    }
    match argument(uri, "source") {
        Some("error") => Err("down".to_owned()),
        Some("trap") => std::process::abort(),
        Some("none") => Ok(None.into()),
        text => Ok(Fresh {
            value: Some(text.map_or_else(|| format!("call {call}"), str::to_owned)),
            ttl: millis(uri, "own"),
            store: argument(uri, "store") != Some("no"),
        }),
    }
}

/// Which answers a request wants to be purged.
fn answers(uri: &str) -> Answers<'_> {
    let of = |name| argument(uri, name);
    match (of("uri"), of("prefix"), of("tag")) {
        (Some(uri), ..) => Answers::Key(uri),
        (_, Some(prefix), _) => Answers::Prefix(prefix),
        (.., tag) => Answers::Tag(tag.unwrap_or("")),
    }
}

/// Many keys, with one call of the source for those that lack.
fn bulk(cache: &Cache<String>, keys: &str, options: Options) -> String {
    let keys: Vec<&str> = keys.split(',').collect();
    let found = cache.get_bulk(&keys, options, |missing| {
        count_call();
        let one = |key: &&&str| match **key {
            "bad" => Err("down".to_owned()),
            "none" => Ok(None.into()),
            key => Ok(Some(format!("<{key}>")).into()),
        };
        missing.iter().map(one).collect()
    });
    let text = |found: Result<cache::Found<String>, CacheError>| match found {
        Ok(found) => format!("{:?}", found.value),
        Err(error) => format!("{error:?}"),
    };
    found.into_iter().map(text).collect::<Vec<_>>().join(" ")
}

/// Looks one key up in one of three ways.
fn look_up(
    cache: &Cache<String>,
    (path, uri): (&str, &str),
    key: &str,
    options: Options,
) -> String {
    let found = match path {
        "/get" => cache.get_with(key, options, || source(uri)),
        "/background" => {
            let (late, uri) = (millis(uri, "late").unwrap_or_default(), uri.to_owned());
            cache.get_background(key, options, late, move || source(&uri))
        }
        _ => cache.renew_with(key, options, || source(uri)),
    };
    match found {
        Ok(found) => format!("{:?} {:?} {}", found.value, found.level, found.stale),
        Err(error) => format!("{error:?}"),
    }
}

fn act(cache: &Cache<String>, uri: &str) -> String {
    let key = argument(uri, "key").unwrap_or("k");
    let options = Options {
        ttl: millis(uri, "ttl"),
        negative_ttl: millis(uri, "negative"),
        stale: millis(uri, "stale"),
        retry: millis(uri, "retry"),
        wait: millis(uri, "wait"),
    };
    let path = uri.split('?').next().unwrap_or("");
    match path {
        "/get" | "/renew" | "/background" => look_up(cache, (path, uri), key, options),
        "/set" => format!(
            "{:?}",
            cache.set(key, argument(uri, "value").map(str::to_owned), options)
        ),
        "/delete" => format!("{:?}", cache.delete(key)),
        "/purge" => format!("{:?}", cache.purge()),
        "/purge-answers" => format!("{:?}", cache.purge_answers(answers(uri))),
        "/peek" => match cache.peek(key, argument(uri, "stale").is_some()) {
            Some((value, left)) => format!("{value:?} {}", left.is_none_or(|left| left > 0)),
            None => "nothing".to_owned(),
        },
        "/bulk" => bulk(cache, key, options),
        "/put" => {
            let number = |name| argument(uri, name).map_or(0, |text| text.parse().unwrap_or(0));
            let text = long(key, number("version"), number("size"));
            format!("{:?}", cache.set(key, Some(text), options))
        }
        "/many" => {
            let number = |name| argument(uri, name).map_or(0, |text| text.parse().unwrap_or(0));
            let set = |n: u64| {
                let key = format!("{key}{n}");
                cache.set(&*key, Some(long(&key, 1, number("size"))), options)
            };
            match (0..number("count")).try_for_each(set) {
                Ok(()) => "written".to_owned(),
                Err(error) => format!("{error:?}"),
            }
        }
        "/look" => match cache.get(key, || Err("none".to_owned())) {
            Ok(Some(value)) => whole(key, &value).unwrap_or_else(|| "torn".to_owned()),
            _ => "none".to_owned(),
        },
        "/parts" => parts(cache).unwrap_or_else(|error| format!("{error:?}")),
        "/speed" => speed(cache),
        "/hits" => hits(cache, uri),
        "/write" => write(cache).unwrap_or_else(|error| error),
        "/read" => read(cache).unwrap_or_else(|error| error),
        "/counter" => cache
            .counters()
            .iter()
            .find(|(name, _)| name == key)
            .map_or_else(|| "?".to_owned(), |(_, count)| count.to_string()),
        "/other" => format!(
            "{:?} {:?}",
            Cache::<String>::open("other").err(),
            Cache::<String>::open("none").err()
        ),
        _ => "what?".to_owned(),
    }
}

/// A value that tells its key, its version and its length, and whose every part follows from them.
fn long(key: &str, version: u64, size: u64) -> String {
    let mut text = format!("{key} {version} {size} ");
    let mut part = version;
    while (text.len() as u64) < size {
        part = part.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(&part.to_string());
    }
    text
}

/// The version of such a value, if it is one of this key, and whole.
fn whole(key: &str, value: &str) -> Option<String> {
    let mut words = value.split(' ');
    let (_, version) = (words.next()?, words.next()?);
    let size = words.next()?.parse().ok()?;
    let same = long(key, version.parse().ok()?, size) == value;
    same.then(|| version.to_owned())
}

/// Two keys that would be one if their parts were only put together.
fn parts(cache: &Cache<String>) -> Result<String, CacheError> {
    let keys = [["a", "bc"], ["ab", "c"]].map(|parts| cache::key(&parts));
    for (key, value) in keys.iter().zip(["first", "second"]) {
        cache.set(key, Some(value.to_owned()), Options::default())?;
    }
    let read = |key| cache.get(key, || Err("it is not there".to_owned()));
    Ok(format!("{:?} {:?}", read(&keys[0])?, read(&keys[1])?))
}

/// What a writer or a reader does in one request.
const ROUNDS: u32 = 2000;

fn written(by: f64) -> Result<f64, String> {
    let calls = Dict::open("calls").map_err(|error| format!("{error:?}"))?;
    let written = calls.incr("written", by, Some(0.0));
    written.map_err(|error| format!("{error:?}"))
}

/// Writes numbers that grow, each told to readers when the call that wrote it has returned.
fn write(cache: &Cache<String>) -> Result<String, String> {
    let mut number = written(0.0)?;
    for _ in 0..ROUNDS {
        number += 1.0;
        cache
            .set("counted", Some(number.to_string()), Options::default())
            .map_err(|error| format!("{error:?}"))?;
        written(1.0)?;
    }
    Ok("written".to_owned())
}

/// Reads, and sees nothing older than what it was told before.
fn read(cache: &Cache<String>) -> Result<String, String> {
    for _ in 0..ROUNDS {
        let least = written(0.0)?;
        let seen = cache
            .get("counted", || Err("there is none".to_owned()))
            .map_err(|error| format!("{error:?}"))?;
        let seen = seen.and_then(|seen| seen.parse::<f64>().ok());
        if seen.is_none_or(|seen| seen < least) {
            return Err(format!("{seen:?} after {least} was written"));
        }
    }
    Ok("fresh".to_owned())
}

/// Nanoseconds of a look-up in this instance.
fn speed(cache: &Cache<String>) -> String {
    const ROUNDS: u32 = 200_000;
    let get = || cache.get("a product's key", || Ok(Some("v".to_owned())));
    if get().is_err() {
        return "error".to_owned();
    }
    let start = time::monotonic();
    for _ in 0..ROUNDS {
        std::hint::black_box(get().is_ok());
    }
    ((time::monotonic() - start) / ROUNDS)
        .as_nanos()
        .to_string()
}

/// Looks the same value up, `count` times; with `look=no` only the loop is run.
fn hits(cache: &Cache<String>, uri: &str) -> String {
    let number = |name| argument(uri, name).map_or(0, |text| text.parse().unwrap_or(0));
    let value = "x".repeat(number("size"));
    let get = || cache.get("a product's key", || Ok(Some(value.clone())));
    let wants = argument(uri, "look") != Some("no");
    let mut found = 0;
    for _ in 0..number("count") {
        found += usize::from(std::hint::black_box(wants) && get().is_ok_and(|v| v.is_some()));
    }
    found.to_string()
}

/// Serves the phase, so that values can come in the background.
#[phasor_plugin::timer]
fn timer() {}

#[phasor_plugin::content]
fn content(request: &Request) -> Answer {
    let uri = request.uri();
    CACHE.with(|cache| match cache {
        Ok(cache) => Answer::text(act(cache, &uri)),
        Err(error) => Answer::text(format!("{error:?}")),
    })
}
