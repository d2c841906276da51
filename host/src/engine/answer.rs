//! Answers that the server makes by itself: a fixed text, a file, an error page.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};

use super::plan::{Respond, Text};
use crate::config::template::Template;
use crate::exchange::{self, Exchange, ExchangeId, variable};
use crate::response::{error_page, files};

/// A template's text for an exchange.
pub(super) fn render(x: &mut Exchange, template: &Template) -> Vec<u8> {
    let mut out = Vec::new();
    template.render(&mut out, |name, out| {
        variable::write(x, name, out);
    });
    out
}

/// A `set` without a plugin.
pub(super) fn set(id: ExchangeId, variable: &str, value: &Template) {
    exchange::with(id, |x| {
        let text = render(x, value);
        x.variables.set(variable, text);
    });
}

/// `respond`.
pub(super) fn respond(id: ExchangeId, respond: &Respond) {
    exchange::with(id, |x| {
        x.response.status = respond.status;
        for (name, value) in &respond.headers {
            x.response.headers.insert(name, value.clone());
        }
        for (name, template) in &respond.templates {
            if let Ok(value) = HeaderValue::from_bytes(&render(x, template)) {
                x.response.headers.insert(name, value);
            }
        }
        let body = match &respond.body {
            Text::Fixed(body) => body.clone(),
            Text::Template(template) => Bytes::from(render(x, template)),
        };
        x.output.push(body);
        x.output.end();
        x.output.whole = true;
    });
}

/// `files`: the head of the answer, and the file if there is one. An error is a status.
pub(super) async fn files(
    id: ExchangeId,
    root: &files::Root,
) -> Result<Option<files::FileBody>, u16> {
    let (target, method, headers) = exchange::with(id, |x| {
        (
            x.request.target.clone(),
            x.request.method.clone(),
            std::mem::take(&mut x.request.headers),
        )
    });
    let outcome = files::open(root, target.as_str().as_bytes(), &method, &headers).await;
    exchange::with(id, |x| {
        x.request.headers = headers;
        for (name, value) in outcome.headers {
            if let Some(name) = name {
                x.response.headers.insert(name, value);
            }
        }
        match outcome.body {
            files::Body::ErrorPage => return Err(outcome.status),
            files::Body::Empty => {}
            files::Body::Bytes(bytes) => x.output.push(bytes),
            files::Body::File(file) => {
                x.response.status = outcome.status;
                return Ok((method != http::Method::HEAD).then_some(file));
            }
        }
        x.response.status = outcome.status;
        Ok(None)
    })
}

/// The page of a status, in place of whatever was there. A subrequest's status has no page: who
/// captured it wants the status.
pub(super) fn status(id: ExchangeId, status: u16) {
    exchange::with(id, |x| {
        x.output.reset();
        x.response.status = status;
        x.response.headers.remove(CONTENT_LENGTH);
        let page = error_page::page(status).filter(|_| x.family.depth == 0);
        match page {
            Some(page) => {
                x.response.headers.insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static(error_page::CONTENT_TYPE),
                );
                x.output.push(page.clone());
            }
            None => {
                x.response.headers.remove(CONTENT_TYPE);
            }
        }
        x.family.truncated = x.family.depth != 0;
        x.output.whole = true;
        x.output.end();
    });
}
