//! A file's way to the client: piece by piece, as the client takes it.

use super::{Engine, Flow};
use crate::error::RequestError;
use crate::exchange;

impl Engine {
    pub(super) async fn send_file(
        &mut self,
        body: Option<crate::response::files::FileBody>,
    ) -> Result<Flow, RequestError> {
        let Some(mut body) = body else {
            self.complete().await;
            return Ok(Flow::Answered);
        };
        exchange::with(self.id, |x| {
            x.deadline = exchange::never(x.started);
        });
        let mut first = true;
        loop {
            let piece = body.next().await;
            let last = body.remaining() == 0;
            match piece {
                Ok(Some(bytes)) => exchange::with(self.id, |x| {
                    x.output.push(bytes);
                    if last {
                        x.output.whole = first;
                        x.output.end();
                    }
                }),
                Ok(None) => exchange::with(self.id, |x| x.output.end()),
                Err(error) => return Err(RequestError::host(error)),
            }
            if std::mem::take(&mut first) {
                self.publish(true).await;
            }
            if last
                || !std::future::poll_fn(|cx| exchange::with(self.id, |x| x.output.poll_room(cx)))
                    .await
            {
                return Ok(Flow::Answered);
            }
        }
    }
}
