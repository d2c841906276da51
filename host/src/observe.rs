//! What the operator sees of a running server, beside the access log: the error log and the files
//! that logs are written to. It stands on the lowest layer, so that everything may write.

pub mod error_log;
pub mod log_file;
pub mod seldom;
