//! An upgrade that passes through to the peer: the client asked to leave HTTP, the peer agreed, and
//! from there on bytes go both ways until one side ends. nginx wants two directives for it; here it
//! happens when the client asks.

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::{Engine, Flow};
use crate::error::{ErrorKind, RequestError};
use crate::exchange;
use crate::upstream::{Proxy, proxy};

impl Engine {
    /// Passes a `101` on, and then whatever comes.
    pub(super) async fn tunnel(
        &mut self,
        mut answer: Response<Incoming>,
        proxy: &Proxy,
    ) -> Result<Flow, RequestError> {
        let fault = |text: String| {
            let text = format!("{text}, upstream {}", proxy.authority);
            RequestError::because(ErrorKind::UpstreamFailed, text)
        };
        let asked = exchange::with(self.id, |x| proxy::asks_upgrade(&x.request).is_some());
        let protocol = answer.headers().get(UPGRADE).filter(|_| asked).cloned();
        let Some(protocol) = protocol else {
            return Err(fault("the answer leaves HTTP unasked".to_owned()));
        };
        let upgrade = hyper::upgrade::on(&mut answer);
        let mut headers = std::mem::take(answer.headers_mut());
        proxy::answer_head(proxy, &mut headers);
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        let upstream = upgrade.await.map_err(|error| fault(error.to_string()))?;
        exchange::with(self.id, |x| {
            x.response.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
            x.response.headers.extend(headers);
        });
        self.publish(true).await;
        let id = self.id;
        let asked = exchange::with(id, exchange::Exchange::ask_downstream);
        let client = match asked {
            Ok(()) => std::future::poll_fn(|cx| exchange::with(id, |x| x.downstream.poll(cx)))
                .await
                .ok(),
            Err(_) => None,
        };
        let Some(client) = client.and_then(|stream| stream.into_io()) else {
            // A header filter made another answer of it, or the client is gone.
            return Ok(Flow::Answered);
        };
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_peer, mut to_peer) = tokio::io::split(TokioIo::new(upstream));
        // As in nginx, the end of one side is the end of both: half a WebSocket is of no use.
        let _either = tokio::select! {
            sent = tokio::io::copy(&mut from_client, &mut to_peer) => sent,
            received = tokio::io::copy(&mut from_peer, &mut to_client) => received,
        };
        let mut client = from_client.unsplit(to_client);
        // The client may be gone.
        let _said = tokio::io::AsyncWriteExt::shutdown(&mut client)
            .await
            .is_ok();
        Ok(Flow::Answered)
    }
}
