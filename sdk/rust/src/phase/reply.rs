//! What a handler may return, and what the host makes of it.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;

use crate::phase::{
    Access, Balancer, BodyFilter, Certificate, CertifiedKey, Choice, ClientHello, Content,
    ExitWorker, Filtered, HeaderFilter, Init, InitWorker, Log, Manifest, Manifested, Phase,
    Precontent, Reply, Rewrite, ServerRewrite, Set, Timed,
};
use crate::{Answer, Verdict};

impl<P: Phase, T: Reply<P>, E: Display> Reply<P> for Result<T, E> {
    fn reply(self) -> Result<P::Output, String> {
        match self {
            Ok(value) => value.reply(),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Phases that return nothing, or what the host wants as it is.
macro_rules! as_it_is {
    ($($type:ty: $($phase:ident)*;)*) => {$($(
        impl Reply<$phase> for $type {
            fn reply(self) -> Result<Self, String> {
                Ok(self)
            }
        }
    )*)*};
}

as_it_is! {
    (): Init InitWorker ExitWorker ClientHello Log Timed;
    Verdict: ServerRewrite Rewrite Access Precontent Content HeaderFilter;
    Option<CertifiedKey>: Certificate;
    Option<Vec<u8>>: Set;
    Choice: Balancer;
    Filtered: BodyFilter;
    Manifest: Manifested;
}

/// No word from the handler: the request goes on.
macro_rules! silent {
    ($($phase:ident => $verdict:expr;)*) => {$(
        impl Reply<$phase> for () {
            fn reply(self) -> Result<<$phase as Phase>::Output, String> {
                Ok($verdict)
            }
        }
    )*};
}

silent! {
    ServerRewrite => Verdict::Next;
    Rewrite => Verdict::Next;
    Access => Verdict::Next;
    Precontent => Verdict::Next;
    Content => Verdict::Done;
    HeaderFilter => Verdict::Next;
    BodyFilter => Filtered::Pass;
}

/// An answer ends the request; no answer lets it go on.
macro_rules! answers {
    ($($phase:ident)*) => {$(
        impl Reply<$phase> for Answer {
            fn reply(self) -> Result<Verdict, String> {
                self.send()?;
                Ok(Verdict::Exit(0))
            }
        }

        impl Reply<$phase> for Option<Answer> {
            fn reply(self) -> Result<Verdict, String> {
                match self {
                    Some(answer) => Reply::<$phase>::reply(answer),
                    None => Ok(Verdict::Next),
                }
            }
        }
    )*};
}

answers!(ServerRewrite Rewrite Access Precontent);

impl Reply<Content> for Answer {
    fn reply(self) -> Result<Verdict, String> {
        self.send()?;
        Ok(Verdict::Done)
    }
}

impl Reply<BodyFilter> for Vec<u8> {
    fn reply(self) -> Result<Filtered, String> {
        Ok(Filtered::Replace(self))
    }
}

impl Reply<Set> for Vec<u8> {
    fn reply(self) -> Result<Option<Self>, String> {
        Ok(Some(self))
    }
}

impl Reply<Set> for String {
    fn reply(self) -> Result<Option<Vec<u8>>, String> {
        Ok(Some(self.into_bytes()))
    }
}

impl Reply<Set> for Option<String> {
    fn reply(self) -> Result<Option<Vec<u8>>, String> {
        Ok(self.map(String::into_bytes))
    }
}
