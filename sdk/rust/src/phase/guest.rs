//! Joins the generated traits, one per phase interface, to the one [`Handler`] trait that the
//! attribute macros implement.

use alloc::string::String;
use alloc::vec::Vec;

use crate::Verdict;
use crate::export;
use crate::phase::{
    Access, Balancer, BodyFilter, Certificate, CertifiedKey, Choice, Chunk, ClientHello, Content,
    ExitWorker, Filtered, Handler, HeaderFilter, Init, InitWorker, Log, Manifest, Manifested,
    Precontent, Rewrite, ServerRewrite, Set, Timed, Timer,
};

macro_rules! without_input {
    ($($module:ident $phase:ident $output:ty;)*) => {$(
        impl<T: Handler<$phase>> export::$module::exports::phasor::plugin::$module::Guest for T {
            fn handle() -> Result<$output, String> {
                T::call(&mut ())
            }
        }
    )*};
}

without_input! {
    init Init ();
    init_worker InitWorker ();
    exit_worker ExitWorker ();
    log Log ();
    server_rewrite ServerRewrite Verdict;
    rewrite Rewrite Verdict;
    access Access Verdict;
    precontent Precontent Verdict;
    content Content Verdict;
    header_filter HeaderFilter Verdict;
}

impl<T: Handler<ClientHello>> export::client_hello::exports::phasor::plugin::client_hello::Guest
    for T
{
    fn handle(mut server_name: Option<String>) -> Result<(), String> {
        T::call(&mut server_name)
    }
}

impl<T: Handler<Certificate>> export::certificate::exports::phasor::plugin::certificate::Guest
    for T
{
    fn handle(mut server_name: Option<String>) -> Result<Option<CertifiedKey>, String> {
        T::call(&mut server_name)
    }
}

impl<T: Handler<Set>> export::set::exports::phasor::plugin::set::Guest for T {
    fn handle(mut name: String) -> Result<Option<Vec<u8>>, String> {
        T::call(&mut name)
    }
}

impl<T: Handler<Balancer>> export::balancer::exports::phasor::plugin::balancer::Guest for T {
    fn handle(mut attempt: u32) -> Result<Choice, String> {
        T::call(&mut attempt)
    }
}

impl<T: Handler<BodyFilter>> export::body_filter::exports::phasor::plugin::body_filter::Guest
    for T
{
    fn handle(bytes: Vec<u8>, last: bool) -> Result<Filtered, String> {
        T::call(&mut Chunk { bytes, last })
    }
}

impl<T: Handler<Timed>> export::timer::exports::phasor::plugin::timer::Guest for T {
    fn handle(token: u64, premature: bool) -> Result<(), String> {
        if crate::timers::run(token) {
            return Ok(());
        }
        T::call(&mut Timer { token, premature })
    }
}

impl<T: Handler<Manifested>> export::manifest::exports::phasor::plugin::manifest::Guest for T {
    fn describe() -> Manifest {
        T::call(&mut ()).unwrap_or_else(|error| Manifest {
            // A manifest cannot fail; its error stands where the operator sees it.
            name: error,
            version: String::new(),
            config_schema: String::new(),
        })
    }
}
