//! `exchange`: the request and its answer as a whole.

use super::bindings::phasor::plugin::exchange::{ConnectionInfo, Host};
use super::{HostState, enter};
use crate::exchange;

impl Host for HostState {
    fn id(&mut self) -> wasmtime::Result<String> {
        let id = enter!(self, "exchange.id");
        Ok(exchange::with(id, |x| format!("{:032x}", x.id())))
    }

    fn connection(&mut self) -> wasmtime::Result<ConnectionInfo> {
        let id = enter!(self, "exchange.connection");
        exchange::with(id, |x| {
            let connection = x
                .connection
                .as_ref()
                .ok_or_else(|| wasmtime::format_err!("the connection is gone"))?;
            Ok(ConnectionInfo {
                remote_address: connection.remote.ip().to_string(),
                remote_port: connection.remote.port(),
                local_address: connection.local.ip().to_string(),
                local_port: connection.local.port(),
                secure: false,
                request_number: x.request_number,
            })
        })
    }

    fn exec(&mut self, target: String) -> wasmtime::Result<Result<(), String>> {
        let id = enter!(self, "exchange.exec");
        Ok(exchange::with(id, |x| {
            if x.response.sent {
                return Err("the answer's head has been sent".to_owned());
            }
            if !target.starts_with('@') {
                x.request
                    .set_target(&target)
                    .map_err(|_| format!("`{target}` is neither @NAME nor a path"))?;
            }
            x.exec = Some(target);
            Ok(())
        }))
    }
}
