//! What a handler may ask for and may return, phase by phase; the attribute macros lean on it.
//!
//! | phase | may ask for | may return |
//! |---|---|---|
//! | `init` `init_worker` `exit_worker` | | `()` |
//! | `client_hello` | `Option<String>`: the server name | `()`; an error refuses |
//! | `certificate` | `Option<String>`: the server name | `Option<CertifiedKey>` |
//! | `set` | `String`: the variable's name; *read* | `Option<Vec<u8>>`, `Option<String>`, `Vec<u8>`, `String` |
//! | `server_rewrite` | *change*, `&mut Writer` | `Verdict`, `()` = `Next`, `Answer` |
//! | `rewrite` `access` `precontent` | *change*, `&mut RequestBody`, `&mut Writer`, `&mut Exchange` | `Verdict`, `()` = `Next`, `Answer`, `Option<Answer>` |
//! | `content` | as `access` | `Answer`, `Verdict`, `()` = `Done` |
//! | `balancer` | `u32`: the try, from 0; *read* | `Choice` |
//! | `header_filter` | *change* | `Verdict`, `()` |
//! | `body_filter` | `Chunk`; *read* | `Filtered`, `()` = pass, `Vec<u8>` |
//! | `log` | *read* | `()` |
//! | `timer` | `Timer` | `()` |
//! | `manifest` | | `Manifest` |
//!
//! *read* is `&Request`, `&Response`, `&Exchange`, `&Context`, `&mut Context`, `&Variables`,
//! `&mut Variables`; *change* is *read*, `&mut Request` and `&mut Response`. All phases with a
//! request but `log` may have `&mut Response`. Every return type may be wrapped in
//! `Result<_, E>` where `E: Display`: an error answers 500 and its text is logged.

mod argument;
mod guest;
mod reply;

use alloc::string::String;
use alloc::vec::Vec;

use crate::Verdict;

pub use crate::export::balancer::exports::phasor::plugin::balancer::Choice;
pub use crate::export::body_filter::exports::phasor::plugin::body_filter::ChunkVerdict as Filtered;
pub use crate::export::certificate::exports::phasor::plugin::certificate::CertifiedKey;
pub use crate::export::manifest::exports::phasor::plugin::manifest::Description as Manifest;

/// A phase, as a type: what the host hands to its handler and what it wants back.
pub trait Phase {
    /// Handed over with the call.
    type Input;
    /// Wanted back.
    type Output;
}

/// A handler's argument of type `Self` can be had in phase `P`.
#[diagnostic::on_unimplemented(
    message = "a `{P}` handler can't be given a `{Self}`",
    label = "not to be had in this phase",
    note = "the documentation of `phasor_plugin::phase` lists what each phase offers"
)]
pub trait Argument<P: Phase> {
    /// Takes it out of the call.
    fn take(input: &mut P::Input) -> Self;
}

/// What a handler of phase `P` may return.
#[diagnostic::on_unimplemented(
    message = "a `{P}` handler can't return `{Self}`",
    label = "not an outcome of this phase",
    note = "the documentation of `phasor_plugin::phase` lists what each phase takes"
)]
pub trait Reply<P: Phase> {
    /// Makes the host's value of it, or the text of why the handler failed.
    fn reply(self) -> Result<P::Output, String>;
}

/// Implemented by what the attribute macros generate.
#[doc(hidden)]
pub trait Handler<P: Phase> {
    fn call(input: &mut P::Input) -> Result<P::Output, String>;
}

/// A piece of the answer's body.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Chunk {
    /// May be empty when it is the last.
    pub bytes: Vec<u8>,
    /// True once, with the end of the body.
    pub last: bool,
}

/// A timer that fires.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timer {
    /// What it was started with.
    pub token: u64,
    /// True when the worker leaves before the time has come.
    pub premature: bool,
}

macro_rules! phases {
    ($($name:ident($text:literal): $input:ty => $output:ty;)*) => {$(
        #[doc = concat!("The phase `", $text, "`.")]
        #[derive(Debug)]
        pub enum $name {}

        impl Phase for $name {
            type Input = $input;
            type Output = $output;
        }
    )*};
}

phases! {
    Manifested("manifest"): () => Manifest;
    Init("init"): () => ();
    InitWorker("init_worker"): () => ();
    ExitWorker("exit_worker"): () => ();
    ClientHello("client_hello"): Option<String> => ();
    Certificate("certificate"): Option<String> => Option<CertifiedKey>;
    ServerRewrite("server_rewrite"): () => Verdict;
    Set("set"): String => Option<Vec<u8>>;
    Rewrite("rewrite"): () => Verdict;
    Access("access"): () => Verdict;
    Precontent("precontent"): () => Verdict;
    Content("content"): () => Verdict;
    Balancer("balancer"): u32 => Choice;
    HeaderFilter("header_filter"): () => Verdict;
    BodyFilter("body_filter"): Chunk => Filtered;
    Log("log"): () => ();
    Timed("timer"): Timer => ();
}

/// Phases that have a request.
pub trait HasExchange: Phase {}
/// Phases that may change the request's head.
pub trait ChangesRequest: HasExchange {}
/// Phases that may change the answer's head.
pub trait ChangesResponse: HasExchange {}
/// Phases that may make the answer.
pub trait Answers: ChangesResponse {}
/// Phases that may read the request's body and may go on as another request.
pub trait ReadsBody: Answers {}

macro_rules! marks {
    ($($mark:ident: $($phase:ident)*;)*) => {$($(impl $mark for $phase {})*)*};
}

marks! {
    HasExchange: ServerRewrite Set Rewrite Access Precontent Content Balancer HeaderFilter BodyFilter Log;
    ChangesRequest: ServerRewrite Rewrite Access Precontent Content HeaderFilter;
    ChangesResponse: ServerRewrite Set Rewrite Access Precontent Content Balancer HeaderFilter BodyFilter;
    Answers: ServerRewrite Rewrite Access Precontent Content;
    ReadsBody: Rewrite Access Precontent Content;
}
