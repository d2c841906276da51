//! A counter and a look-up in Redis. The handler is an `async fn`; the calls could as well `.wait()`.

use phasor_plugin::{Answer, Request, redis};

#[phasor_plugin::content]
async fn shop(request: &Request) -> Answer {
    let uri = request.uri();
    match uri.split_once("?id=") {
        Some(("/rust/product", id)) => product(id).await,
        _ => visits().await,
    }
}

async fn visits() -> Answer {
    match redis::command("main", &["INCR", "visits:rust"]).await {
        Ok(count) => Answer::text(format!("visit {}\n", count.as_integer().unwrap_or(0))),
        Err(error) => Answer::text(format!("no counter: {error:?}\n")).status(503),
    }
}

async fn product(id: &str) -> Answer {
    match redis::get("main", format!("product:{id}")).await {
        Ok(Some(product)) => Answer::text(String::from_utf8_lossy(&product).into_owned() + "\n"),
        Ok(None) => Answer::text("no such product\n").status(404),
        Err(error) => Answer::text(format!("no products: {error:?}\n")).status(503),
    }
}
