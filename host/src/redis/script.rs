//! Scripts: what has to happen in Redis as one.

use std::fmt::Write as _;
use std::sync::Arc;

use ::redis::{Cmd, Value, cmd};
use sha1::{Digest as _, Sha1};

use super::{Client, RedisError};

/// A script and the name by which Redis knows it once it has seen it.
#[derive(Debug)]
pub(crate) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        let hash = Sha1::digest(text.as_bytes())
            .iter()
            .fold(String::new(), |mut hash, byte| {
                // Writing to a string cannot fail.
                let _written = write!(hash, "{byte:02x}").is_ok();
                hash
            });
        Self { text, hash }
    }

    /// Runs it by its name; its text goes along where Redis does not know it yet.
    pub(crate) async fn run(
        &self,
        client: &Arc<Client>,
        keys: &[Vec<u8>],
        arguments: &[Vec<u8>],
    ) -> Result<Value, RedisError> {
        let call = |command: &str, script: &str| -> Cmd {
            let mut call = cmd(command);
            call.arg(script).arg(keys.len());
            for part in keys.iter().chain(arguments) {
                call.arg(part.as_slice());
            }
            call
        };
        let first = client.clone().command(call("EVALSHA", &self.hash)).await;
        match first {
            Err(RedisError::Failed(text)) if text.starts_with("NOSCRIPT") => {
                client.clone().command(call("EVAL", self.text)).await
            }
            reply => reply,
        }
    }
}
