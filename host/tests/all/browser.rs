//! A real browser: Chromium without a window, driven by its DevTools protocol over the tests' own
//! WebSocket client. A page is looked at as a person sees it, and written to by keys.

use std::process::Command;

use regex::Regex;
use serde_json::{Value, json};

use crate::harness::{Folder, free_port};
use crate::process::{PATIENCE, Process, have};
use crate::redis::wait_until;
use crate::websocket::{Peer, TEXT};

/// What of Chromium is off: what asks the network, what wants a display, what slows a page that
/// nobody looks at. CI runs as root and has little shared memory.
const OFF: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--no-first-run",
    "--no-proxy-server",
];

/// The browser, ended when it is dropped.
pub(crate) struct Browser {
    wire: Peer,
    calls: u64,
    /// What pages threw and nobody caught.
    faults: Vec<String>,
    _process: Process,
    _profile: Folder,
}

/// An open page of it.
pub(crate) struct Page {
    target: String,
    session: String,
}

impl Browser {
    /// Starts it; `None` when it is not installed.
    pub(crate) fn start() -> Option<Self> {
        if !have("chromium") {
            return None;
        }
        let profile = Folder::new();
        let port = free_port();
        let mut command = Command::new("chromium");
        command
            .args(OFF)
            .arg(format!("--remote-debugging-port={port}"))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path());
        let process = Process::start(command);
        let listening = Regex::new(r"listening on ws://127\.0\.0\.1:\d+/\S+").unwrap();
        let line = process.stderr.wait_for(&listening, 0, PATIENCE);
        let line = line.unwrap_or_else(|| panic!("no browser: {}", process.stderr.since(0)));
        let path = &line[line.find("/devtools").unwrap()..];
        Some(Self {
            wire: Peer::open(port, path, ""),
            calls: 0,
            faults: Vec::new(),
            _process: process,
            _profile: profile,
        })
    }

    /// Opens a page, as somebody who shares nothing with the other pages.
    pub(crate) fn open(&mut self, url: &str) -> Page {
        let person = self.call(None, "Target.createBrowserContext", &json!({}));
        let target = self.call(
            None,
            "Target.createTarget",
            &json!({ "url": "about:blank", "browserContextId": person["browserContextId"] }),
        );
        let target = target["targetId"].as_str().unwrap().to_owned();
        let session = self.call(
            None,
            "Target.attachToTarget",
            &json!({ "targetId": target, "flatten": true }),
        );
        let session = session["sessionId"].as_str().unwrap().to_owned();
        let page = Page { target, session };
        self.call(Some(&page), "Runtime.enable", &json!({}));
        self.call(Some(&page), "Page.navigate", &json!({ "url": url }));
        self.loaded(&page);
        page
    }

    /// Loads a page anew.
    pub(crate) fn reload(&mut self, page: &Page) {
        // The old document must not be taken for the new one.
        self.value(page, "document.body.remove()");
        self.call(Some(page), "Page.reload", &json!({}));
        self.loaded(page);
    }

    fn loaded(&mut self, page: &Page) {
        self.wait(page, "document.readyState === 'complete' && document.body && document.body.childElementCount > 0");
    }

    /// Closes a page, as its cross does.
    pub(crate) fn close(&mut self, page: &Page) {
        let target = json!({ "targetId": page.target });
        self.call(None, "Target.closeTarget", &target);
    }

    /// What an expression of JavaScript is in the page; null while its document changes.
    pub(crate) fn value(&mut self, page: &Page, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let answer = self.call(Some(page), "Runtime.evaluate", &parameters);
        let fault = &answer["exceptionDetails"];
        assert!(fault.is_null(), "{expression}: {fault}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page.
    pub(crate) fn wait(&mut self, page: &Page, expression: &str) {
        let mut last = Value::Null;
        let so = std::panic::AssertUnwindSafe(|| {
            wait_until(|| {
                last = self.value(page, expression);
                last == true
            });
        });
        if std::panic::catch_unwind(so).is_err() {
            let text = self.value(page, "document.body.innerText");
            panic!("{expression} is {last}; the page shows {text}");
        }
    }

    /// Types a text into the element that has the focus, then Enter.
    pub(crate) fn type_line(&mut self, page: &Page, text: &str) {
        self.call(Some(page), "Input.insertText", &json!({ "text": text }));
        for kind in ["keyDown", "keyUp"] {
            let key = json!({ "type": kind, "key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13 });
            self.call(Some(page), "Input.dispatchKeyEvent", &key);
        }
    }

    /// What pages threw and nobody caught.
    pub(crate) fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Sends a command to the browser, or to a page, and reads on to its answer.
    fn call(&mut self, page: Option<&Page>, method: &str, parameters: &Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(page) = page {
            message["sessionId"] = json!(page.session);
        }
        self.wire.send(TEXT, message.to_string().as_bytes());
        loop {
            let (first, text) = self.wire.receive();
            assert_eq!(first, TEXT);
            let mut message: Value = serde_json::from_slice(&text).unwrap();
            if message["method"] == "Runtime.exceptionThrown" {
                self.faults.push(message["params"].to_string());
            }
            if message["id"] == self.calls {
                let error = &message["error"];
                // A document that is just being replaced answers nothing.
                let replaced = error["message"].as_str().is_some_and(|text| {
                    text.contains("navigated") || text.contains("Cannot find context")
                });
                assert!(error.is_null() || replaced, "{method}: {error}");
                return message["result"].take();
            }
        }
    }
}
