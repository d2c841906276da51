//! The attribute macros of `phasor-plugin`: each makes a function the handler of one phase, and the
//! plugin's component export that phase. They are documented and used through `phasor-plugin`.

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Error, FnArg, Ident, ItemFn, ReturnType, parse_macro_input};

macro_rules! attributes {
    ($($(#[$doc:meta])* $name:ident => $phase:literal;)*) => {$(
        $(#[$doc])*
        #[proc_macro_attribute]
        pub fn $name(attribute: TokenStream, item: TokenStream) -> TokenStream {
            let function = parse_macro_input!(item as ItemFn);
            let expanded = match refuse(&attribute.into(), &function) {
                Some(error) => {
                    let error = error.to_compile_error();
                    quote!(#error #function)
                }
                None => expand(stringify!($name), $phase, &function),
            };
            expanded.into()
        }
    )*};
}

attributes! {
    /// What the plugin says of itself: returns a `Manifest`.
    manifest => "Manifested";
    /// Once, when a generation is built; what it leaves in memory is what every instance starts from.
    init => "Init";
    /// An instance starts in a worker.
    init_worker => "InitWorker";
    /// An instance leaves its worker.
    exit_worker => "ExitWorker";
    /// A TLS handshake begins.
    client_hello => "ClientHello";
    /// A TLS handshake needs a certificate.
    certificate => "Certificate";
    /// Before the route is found.
    server_rewrite => "ServerRewrite";
    /// A variable of the route is computed.
    set => "Set";
    /// The route is known; URI and headers may change.
    rewrite => "Rewrite";
    /// Lets the request in, or answers.
    access => "Access";
    /// May answer before the content handler does.
    precontent => "Precontent";
    /// Makes the answer.
    content => "Content";
    /// Before each try of an upstream peer.
    balancer => "Balancer";
    /// The answer's head, before it is sent.
    header_filter => "HeaderFilter";
    /// Each chunk of the answer's body, and its end.
    body_filter => "BodyFilter";
    /// After the answer has left.
    log => "Log";
    /// A timer of the plugin fires.
    timer => "Timed";
}

/// What no phase can be given.
fn refuse(attribute: &Tokens, function: &ItemFn) -> Option<Error> {
    let signature = &function.sig;
    if !attribute.is_empty() {
        return Some(Error::new_spanned(
            attribute,
            "this attribute takes no arguments",
        ));
    }
    if !signature.generics.params.is_empty() {
        return Some(Error::new_spanned(
            &signature.generics,
            "a handler can't be generic",
        ));
    }
    let receiver = signature
        .inputs
        .iter()
        .find(|input| matches!(input, FnArg::Receiver(_)));
    receiver.map(|input| Error::new_spanned(input, "a handler is a function without `self`"))
}

/// The function as it is, and beside it the type by which the host's call reaches it.
fn expand(attribute: &str, phase: &str, function: &ItemFn) -> Tokens {
    let name = &function.sig.ident;
    let module = Ident::new(attribute, Span::call_site());
    let export = format_ident!("__export_phase_{attribute}_impl");
    let phase = Ident::new(phase, Span::call_site());
    let phase = quote!(::phasor_plugin::phase::#phase);
    let arguments = function.sig.inputs.iter().map(|input| {
        let span = match input {
            FnArg::Typed(typed) => typed.ty.span(),
            FnArg::Receiver(receiver) => receiver.span(),
        };
        quote_spanned!(span=> ::phasor_plugin::phase::Argument::<#phase>::take(input))
    });
    let outcome = match &function.sig.output {
        ReturnType::Default => name.span(),
        ReturnType::Type(_, kind) => kind.span(),
    };
    let call = quote!(#name(#(#arguments),*));
    // An `async fn` runs in the executor of `task`.
    let call = match function.sig.asyncness {
        Some(_) => quote!(::phasor_plugin::task::block_on(#call)),
        None => call,
    };
    let reply = quote_spanned!(outcome=> ::phasor_plugin::phase::Reply::<#phase>::reply);
    quote! {
        #function

        const _: () = {
            enum Export {}

            impl ::phasor_plugin::phase::Handler<#phase> for Export {
                #[allow(unused_variables, clippy::unit_arg, reason = "a handler may take and return nothing")]
                fn call(
                    input: &mut <#phase as ::phasor_plugin::phase::Phase>::Input,
                ) -> ::core::result::Result<
                    <#phase as ::phasor_plugin::phase::Phase>::Output,
                    ::phasor_plugin::export::String,
                > {
                    #reply(#call)
                }
            }

            #[cfg(target_arch = "wasm32")]
            ::phasor_plugin::#export!(
                Export with_types_in ::phasor_plugin::export::#module
            );

            // Off Wasm nothing is exported, so that tests of plugins link; the handler is used all the same.
            #[cfg(not(target_arch = "wasm32"))]
            const _: fn(
                &mut <#phase as ::phasor_plugin::phase::Phase>::Input,
            ) -> ::core::result::Result<
                <#phase as ::phasor_plugin::phase::Phase>::Output,
                ::phasor_plugin::export::String,
            > = <Export as ::phasor_plugin::phase::Handler<#phase>>::call;
        };
    }
}
