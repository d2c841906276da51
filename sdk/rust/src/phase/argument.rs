//! Which argument a handler may have in which phase.

use alloc::boxed::Box;
use alloc::string::String;
use core::mem;

use crate::phase::{
    Argument, Balancer, BodyFilter, Certificate, ChangesRequest, ChangesResponse, Chunk,
    ClientHello, HasExchange, Phase, ReadsBody, Set, Timed, Timer,
};
use crate::{Context, Exchange, Request, RequestBody, Response, Variables, Writer};

/// The types of the current exchange have no size: a box of one allocates nothing, and leaking it
/// leaks nothing.
macro_rules! of_the_exchange {
    ($($(&$mutable:ident)? $type:ident where $phase:ident;)*) => {$(
        of_the_exchange!(@ $($mutable)? $type $phase);
    )*};
    (@ $type:ident $phase:ident) => {
        impl<'a, P: $phase> Argument<P> for &'a $type {
            fn take(_: &mut P::Input) -> &'a $type {
                Box::leak(Box::new($type(())))
            }
        }
    };
    (@ mut_ $type:ident $phase:ident) => {
        impl<'a, P: $phase> Argument<P> for &'a mut $type {
            fn take(_: &mut P::Input) -> &'a mut $type {
                Box::leak(Box::new($type(())))
            }
        }
    };
}

of_the_exchange! {
    Request where HasExchange;
    &mut_ Request where ChangesRequest;
    &mut_ RequestBody where ReadsBody;
    Response where HasExchange;
    &mut_ Response where ChangesResponse;
    Exchange where HasExchange;
    &mut_ Exchange where ReadsBody;
    Context where HasExchange;
    &mut_ Context where HasExchange;
    Variables where HasExchange;
    &mut_ Variables where HasExchange;
}

impl<'a, P: crate::phase::Answers> Argument<P> for &'a mut Writer {
    fn take(_: &mut P::Input) -> &'a mut Writer {
        Box::leak(Box::new(Writer(())))
    }
}

/// The input itself.
macro_rules! input {
    ($($type:ty where $phase:ident;)*) => {$(
        impl Argument<$phase> for $type {
            fn take(input: &mut <$phase as Phase>::Input) -> Self {
                mem::take(input)
            }
        }
    )*};
}

input! {
    Chunk where BodyFilter;
    String where Set;
    Option<String> where ClientHello;
    Option<String> where Certificate;
}

impl Argument<Balancer> for u32 {
    fn take(input: &mut Self) -> Self {
        *input
    }
}

impl Argument<Timed> for Timer {
    fn take(input: &mut Self) -> Self {
        *input
    }
}
