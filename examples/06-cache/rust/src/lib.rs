//! The same products from the same cache, in Rust: what this instance keeps is the decoded `Product`.

use phasor_plugin::cache::{Cache, CacheError, Cached, Fresh, Level, Options};
use phasor_plugin::{Answer, Request, subrequest};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Product {
    id: String,
    name: String,
    price: f64,
}

impl Cached for Product {
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn decode(bytes: Vec<u8>) -> Option<Self> {
        serde_json::from_slice(&bytes).ok()
    }
}

thread_local!(static PRODUCTS: Result<Cache<Product>, CacheError> = Cache::open("products"));

/// The source: `None` is remembered, too ("there is no such product"); an error is not.
fn ask_database(id: &str) -> Result<Fresh<Product>, String> {
    let path = format!("/database/{id}");
    let answer = subrequest::get(&path).send().wait();
    let answer = answer.map_err(|error| format!("{error:?}"))?;
    match answer.status {
        200 => Product::decode(answer.body)
            .map(|product| Some(product).into())
            .ok_or_else(|| "the database says what is no product".to_owned()),
        404 => Ok(None.into()),
        status => Err(format!("the database says {status}")),
    }
}

fn show(products: &Cache<Product>, id: &str) -> Result<Answer, CacheError> {
    let key = format!("product:{id}");
    let found = products.get_with(key, Options::default(), || ask_database(id))?;
    let level = match found.level {
        None => "instance",
        Some(Level::Memory) => "memory",
        Some(Level::Disk) => "disk",
        Some(Level::Remote) => "redis",
        Some(Level::Callback) => "callback",
    };
    let product = serde_json::to_string(&found.value.as_deref()).unwrap_or_default();
    let stale = found.stale;
    let text = format!(r#"{{"level":"{level}","stale":{stale},"product":{product}}}"#);
    Ok(Answer::json(text + "\n"))
}

#[phasor_plugin::content]
fn content(request: &Request) -> Answer {
    let path = request.path();
    let id = path.rsplit('/').next().unwrap_or_default();
    let shown = PRODUCTS.with(|products| match products {
        Ok(products) => show(products, id).map_err(|error| format!("{error:?}")),
        Err(error) => Err(format!("{error:?}")),
    });
    shown.unwrap_or_else(|error| Answer::text(error + "\n").status(503))
}
