//! `subrequest`: requests inside the server, within what `allow.subrequest` names.

use http::{HeaderName, HeaderValue, Method};
use wasmtime::component::Resource;

use super::bindings::phasor::plugin::subrequest as wit;
use super::operation::{Outcome, Work, wrong_kind};
use super::request::header_list;
use super::{HostState, Operation, enter};
use crate::exchange::subrequest::{BodySource, Captured, Inherit, Order, Refused};
use crate::exchange::{self, ExchangeId, variable};

/// An answer, or why there is none.
#[derive(Debug)]
pub struct CaptureOutcome(Result<Captured, wit::SubrequestError>);

fn refused(why: Refused) -> wit::SubrequestError {
    match why {
        Refused::Target(text) => wit::SubrequestError::Invalid(text),
        Refused::Variable(name) => wit::SubrequestError::UnknownVariable(name),
        Refused::Depth(most) => wit::SubrequestError::TooDeep(most),
        Refused::Count(most) => wit::SubrequestError::TooMany(most),
    }
}

fn order(request: wit::Inner) -> Result<Order, wit::SubrequestError> {
    let invalid = |text: String| wit::SubrequestError::Invalid(text);
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| invalid(format!("`{}` is no method", request.method)))?;
    let headers = request.headers.into_iter().map(|(name, value)| {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .ok()
            .zip(HeaderValue::from_bytes(&value).ok());
        parsed.ok_or_else(|| invalid(format!("`{name}` is no header that can be sent")))
    });
    Ok(Order {
        target: request.target,
        method,
        headers: headers.collect::<Result<_, _>>()?,
        body: match request.body {
            wit::BodySource::None => BodySource::None,
            wit::BodySource::Current => BodySource::Current,
            wit::BodySource::Bytes(bytes) => BodySource::Bytes(bytes.into()),
        },
        inherit: match request.inherit {
            wit::VariablesFrom::None => Inherit::None,
            wit::VariablesFrom::Copy => Inherit::Copy,
            wit::VariablesFrom::Share => Inherit::Share,
        },
        variables: request.variables,
        context: request.context,
    })
}

impl HostState {
    /// Whether `allow.subrequest` names the target as it will be routed.
    fn may_ask(&self, target: &str) -> bool {
        let fits = |path: &[u8]| self.plugin.allow.subrequest.allows(|t| t.fits(path));
        if target.starts_with('@') {
            return fits(target.as_bytes());
        }
        let mut request = exchange::Request::default();
        // What is no path at all is refused by who routes it.
        request.set_target(target).is_err()
            || variable::normal_path(&request).is_none_or(|path| fits(&path))
    }

    /// What is under way for a subrequest.
    fn asking(&self, id: ExchangeId, request: wit::Inner) -> Work {
        if self.may_ask(&request.target) {
            return begin(id, request);
        }
        let path = request.target.split('?').next().unwrap_or_default();
        let text = format!("allow.subrequest does not cover `{path}`");
        self.refuse("subrequest", path);
        let refused = wit::SubrequestError::Refused(text);
        Work::Done(Outcome::Captured(CaptureOutcome(Err(refused))))
    }
}

fn begin(id: ExchangeId, request: wit::Inner) -> Work {
    let done = |result| Work::Done(Outcome::Captured(CaptureOutcome(result)));
    let order = match order(request) {
        Ok(order) => order,
        Err(error) => return done(Err(error)),
    };
    let begin = exchange::try_with(id, |x| x.family.begin.clone()).flatten();
    let Some(begin) = begin else {
        return done(Err(wit::SubrequestError::Ended));
    };
    match begin.begin(id, order) {
        Ok(answer) => Work::Task(Box::pin(async move {
            let answer = answer.await.map_err(|_| wit::SubrequestError::Ended);
            Outcome::Captured(CaptureOutcome(answer))
        })),
        Err(why) => done(Err(refused(why))),
    }
}

type Answer = wasmtime::Result<Result<wit::Captured, wit::SubrequestError>>;

/// The answer, its body cut off after `most` bytes.
fn captured(outcome: Outcome, function: &str, most: usize) -> Answer {
    match outcome {
        Outcome::Captured(CaptureOutcome(answer)) => Ok(answer.map(|mut answer| {
            let truncated = answer.truncated || answer.body.len() > most;
            answer.body.truncate(most);
            wit::Captured {
                status: answer.status,
                headers: header_list(&answer.headers),
                body: answer.body,
                truncated,
            }
        })),
        _ => Err(wrong_kind(function)),
    }
}

impl wit::Host for HostState {
    async fn capture(&mut self, request: wit::Inner) -> Answer {
        let id = enter!(self, "subrequest.capture");
        let operation = Operation::new(self.asking(id, request));
        let outcome = operation.wait().await;
        captured(outcome, "subrequest.capture", self.most_at_once())
    }

    fn begin_capture(&mut self, request: wit::Inner) -> wasmtime::Result<Resource<Operation>> {
        let id = enter!(self, "subrequest.begin-capture");
        let work = self.asking(id, request);
        self.begin(work)
    }

    async fn end_capture(&mut self, op: Resource<Operation>) -> Answer {
        enter!(self, "subrequest.end-capture");
        let outcome = self.finish(op).await?;
        captured(outcome, "subrequest.end-capture", self.most_at_once())
    }

    fn depth(&mut self) -> wasmtime::Result<u32> {
        let id = enter!(self, "subrequest.depth");
        Ok(exchange::with(id, |x| x.family.depth))
    }
}
