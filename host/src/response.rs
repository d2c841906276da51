//! What an answer is made of when no plugin makes it: files and error pages.

pub mod error_page;
pub mod files;
