//! How a call into a guest fails, as the engine needs to know it: the cause for the log, the kind for
//! the answer.

use std::fmt;

use crate::error::{ErrorKind, RequestError};

/// Why a call did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The guest trapped; the text has its backtrace.
    Trap(String),
    /// The handler returned an error.
    Failed(String),
    /// The CPU budget (in milliseconds) is used up; the text has the guest's backtrace.
    Cpu(u128, String),
    /// The memory limit (in bytes) was reached, and the guest did not survive that.
    Memory(usize, String),
    /// The exchange's deadline has passed.
    Deadline,
    /// The client has left.
    ClientLeft,
    /// No instance came free, or too many wait for one.
    Exhausted(&'static str),
    /// An instance could not be made.
    Start(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(text) => write!(f, "trap: {text}"),
            Self::Failed(text) => f.write_str(text),
            Self::Cpu(budget, text) => write!(
                f,
                "the CPU budget of {budget} ms (limits.cpu) is used up: {text}"
            ),
            Self::Memory(limit, text) => write!(
                f,
                "the memory limit of {limit} bytes (limits.memory) was reached: {text}"
            ),
            Self::Deadline => f.write_str("the deadline (limits.deadline) has passed"),
            Self::ClientLeft => f.write_str("the client has left"),
            Self::Exhausted(why) => write!(f, "no instance is free: {why}"),
            Self::Start(text) => write!(f, "an instance could not start: {text}"),
        }
    }
}

impl std::error::Error for CallError {}

impl From<CallError> for RequestError {
    fn from(error: CallError) -> Self {
        let kind = match &error {
            CallError::Trap(_) => ErrorKind::PluginTrap,
            CallError::Failed(_) => ErrorKind::PluginFailed,
            CallError::Cpu(..) => ErrorKind::PluginCpu,
            CallError::Memory(..) => ErrorKind::PluginMemory,
            CallError::Deadline => ErrorKind::PluginDeadline,
            CallError::ClientLeft => ErrorKind::ClientClosed,
            CallError::Exhausted(_) => ErrorKind::PoolExhausted,
            CallError::Start(_) => ErrorKind::Host,
        };
        Self::because(kind, error)
    }
}
