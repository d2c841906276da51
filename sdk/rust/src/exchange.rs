//! The request and its answer in progress, as a whole.

use alloc::string::String;

use crate::bindings::phasor::plugin::exchange as host;

pub use host::ConnectionInfo;

/// The current exchange. `&mut Exchange` is given where it may go on as another request.
#[derive(Debug)]
pub struct Exchange(pub(crate) ());

impl Exchange {
    /// 32 hexadecimal digits, the same as `$request_id`.
    #[must_use]
    pub fn id(&self) -> String {
        host::id()
    }

    /// The connection that carries this exchange.
    #[must_use]
    pub fn connection(&self) -> ConnectionInfo {
        host::connection()
    }

    /// Goes on as another request inside the server, when the handler returns: `@name` is a named
    /// route, anything else a URI. The error is a text.
    pub fn exec(&mut self, target: &str) -> Result<(), String> {
        host::exec(target)
    }
}
