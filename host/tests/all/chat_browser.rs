//! The page of the example `05-websocket-chat` in a real browser: two people in a room.

use rustix::process::Signal;

use crate::browser::{Browser, Page};
use crate::chat::server;

/// The line that the log of a page ends with, within all that it shows.
fn last(text: &str) -> String {
    let text = serde_json::json!(text);
    format!("(document.querySelector('#log li:last-child') || {{}}).textContent === {text}")
}

fn here(browser: &mut Browser, page: &Page, names: &str) {
    let line = format!("document.getElementById('people').textContent === 'Here: {names}'");
    browser.wait(page, &line);
}

#[test]
fn two_people_talk() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let server = server();
    let base = format!("http://127.0.0.1:{}", server.port());
    // Ada comes by a link, Eve fills in the form.
    let ada = browser.open(&format!("{base}/?name=Ada&room=tea"));
    here(&mut browser, &ada, "Ada");
    let eve = browser.open(&base);
    browser.value(&eve, "document.forms.enter.elements.room.value = 'tea'");
    browser.value(&eve, "document.forms.enter.elements.name.focus()");
    browser.type_line(&eve, "Eve");
    for page in [&ada, &eve] {
        here(&mut browser, page, "Ada, Eve");
    }
    browser.wait(&ada, &last("Evecame in"));

    // What is typed is shown to both as it was typed, not as HTML.
    browser.type_line(&eve, "<i>hällo</i> & 東京");
    for page in [&ada, &eve] {
        browser.wait(page, &last("Eve<i>hällo</i> & 東京"));
        assert_eq!(
            browser.value(page, "document.querySelectorAll('#log i').length"),
            0
        );
    }
    assert_eq!(
        browser.value(&eve, "document.forms.say.elements.text.value"),
        ""
    );
    browser.value(&ada, "document.forms.say.elements.text.focus()");
    browser.type_line(&ada, "tea?");
    browser.wait(&eve, &last("Adatea?"));

    // Who loads the page anew leaves, and by Ada's link comes in again.
    browser.reload(&ada);
    let seen = "[...document.querySelectorAll('#log .event')].map(line => line.textContent).join()";
    browser.wait(&eve, &format!("{seen}.endsWith('Adaleft,Adacame in')"));
    here(&mut browser, &eve, "Ada, Eve");
    // A connection that is lost comes back by itself.
    browser.value(&ada, "socket.close()");
    browser.wait(
        &eve,
        &format!("{seen}.endsWith('Adaleft,Adacame in,Adaleft,Adacame in')"),
    );
    browser.value(&ada, "document.forms.say.elements.text.focus()");
    browser.wait(
        &ada,
        "document.getElementById('state').textContent === 'connected'",
    );
    browser.type_line(&ada, "again");
    browser.wait(&eve, &last("Adaagain"));
    // A page that is closed leaves for good.
    browser.close(&eve);
    browser.wait(&ada, &last("Eveleft"));
    here(&mut browser, &ada, "Ada");
    assert_eq!(browser.faults(), <[String; 0]>::default());
    drop(browser);
    server.stop(Signal::TERM);
}
