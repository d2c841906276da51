//! The error log. [`error!`](crate::error), [`warn!`](crate::warn), [`notice!`](crate::notice),
//! [`info!`](crate::info) and [`debug!`](crate::debug) format as `format!` does, and not at all
//! when the log's level would drop the line.

use crate::bindings::phasor::plugin::error_log as host;

pub use host::Level;

/// Writes a line when the log's level lets it through.
pub fn write(level: Level, message: &str) {
    host::write(level, message);
}

/// Whether the log writes lines of this level. nginx's levels: the lower, the more severe.
#[must_use]
pub fn enabled(level: Level) -> bool {
    level <= host::max_level()
}

#[doc(hidden)]
pub fn format(level: Level, arguments: core::fmt::Arguments<'_>) {
    match arguments.as_str() {
        Some(text) => write(level, text),
        None if enabled(level) => write(level, &alloc::fmt::format(arguments)),
        None => {}
    }
}

/// Writes a line of level `error`.
#[macro_export]
macro_rules! error {
    ($($part:tt)*) => {
        $crate::error_log::format($crate::error_log::Level::Error, ::core::format_args!($($part)*))
    };
}

/// Writes a line of level `warn`.
#[macro_export]
macro_rules! warn {
    ($($part:tt)*) => {
        $crate::error_log::format($crate::error_log::Level::Warn, ::core::format_args!($($part)*))
    };
}

/// Writes a line of level `notice`.
#[macro_export]
macro_rules! notice {
    ($($part:tt)*) => {
        $crate::error_log::format($crate::error_log::Level::Notice, ::core::format_args!($($part)*))
    };
}

/// Writes a line of level `info`.
#[macro_export]
macro_rules! info {
    ($($part:tt)*) => {
        $crate::error_log::format($crate::error_log::Level::Info, ::core::format_args!($($part)*))
    };
}

/// Writes a line of level `debug`.
#[macro_export]
macro_rules! debug {
    ($($part:tt)*) => {
        $crate::error_log::format($crate::error_log::Level::Debug, ::core::format_args!($($part)*))
    };
}
