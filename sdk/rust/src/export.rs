//! The glue that makes a phase an export, one small world per phase: a component must export the
//! phases that its plugin serves and no other, so each has its own export macro, which the
//! attribute of that phase calls in the plugin's crate.

pub use alloc::string::String;

macro_rules! phase_world {
    ($module:ident, $world:tt, $inline:tt, $export:tt, $suffix:tt, $with:tt) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../../wit",
                inline: $inline,
                world: $world,
                with: $with,
                pub_export_macro: true,
                export_macro_name: $export,
                type_section_suffix: $suffix,
            });
        }
    };
}

phase_world!(
    manifest,
    "phasor:sdk-manifest/phase-manifest",
    "package phasor:sdk-manifest; world phase-manifest { export phasor:plugin/manifest@0.1.0; }",
    "export_manifest",
    "manifest",
    {}
);

phase_world!(
    init,
    "phasor:sdk-init/phase-init",
    "package phasor:sdk-init; world phase-init { export phasor:plugin/init@0.1.0; }",
    "export_init",
    "init",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    init_worker,
    "phasor:sdk-init-worker/phase-init-worker",
    "package phasor:sdk-init-worker; world phase-init-worker { export phasor:plugin/init-worker@0.1.0; }",
    "export_init_worker",
    "init_worker",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    exit_worker,
    "phasor:sdk-exit-worker/phase-exit-worker",
    "package phasor:sdk-exit-worker; world phase-exit-worker { export phasor:plugin/exit-worker@0.1.0; }",
    "export_exit_worker",
    "exit_worker",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    client_hello,
    "phasor:sdk-client-hello/phase-client-hello",
    "package phasor:sdk-client-hello; world phase-client-hello { export phasor:plugin/client-hello@0.1.0; }",
    "export_client_hello",
    "client_hello",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    certificate,
    "phasor:sdk-certificate/phase-certificate",
    "package phasor:sdk-certificate; world phase-certificate { export phasor:plugin/certificate@0.1.0; }",
    "export_certificate",
    "certificate",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    server_rewrite,
    "phasor:sdk-server-rewrite/phase-server-rewrite",
    "package phasor:sdk-server-rewrite; world phase-server-rewrite { export phasor:plugin/server-rewrite@0.1.0; }",
    "export_server_rewrite",
    "server_rewrite",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    set,
    "phasor:sdk-set/phase-set",
    "package phasor:sdk-set; world phase-set { export phasor:plugin/set@0.1.0; }",
    "export_set",
    "set",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    rewrite,
    "phasor:sdk-rewrite/phase-rewrite",
    "package phasor:sdk-rewrite; world phase-rewrite { export phasor:plugin/rewrite@0.1.0; }",
    "export_rewrite",
    "rewrite",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    access,
    "phasor:sdk-access/phase-access",
    "package phasor:sdk-access; world phase-access { export phasor:plugin/access@0.1.0; }",
    "export_access",
    "access",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    precontent,
    "phasor:sdk-precontent/phase-precontent",
    "package phasor:sdk-precontent; world phase-precontent { export phasor:plugin/precontent@0.1.0; }",
    "export_precontent",
    "precontent",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    content,
    "phasor:sdk-content/phase-content",
    "package phasor:sdk-content; world phase-content { export phasor:plugin/content@0.1.0; }",
    "export_content",
    "content",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    balancer,
    "phasor:sdk-balancer/phase-balancer",
    "package phasor:sdk-balancer; world phase-balancer { export phasor:plugin/balancer@0.1.0; }",
    "export_balancer",
    "balancer",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    header_filter,
    "phasor:sdk-header-filter/phase-header-filter",
    "package phasor:sdk-header-filter; world phase-header-filter { export phasor:plugin/header-filter@0.1.0; }",
    "export_header_filter",
    "header_filter",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    body_filter,
    "phasor:sdk-body-filter/phase-body-filter",
    "package phasor:sdk-body-filter; world phase-body-filter { export phasor:plugin/body-filter@0.1.0; }",
    "export_body_filter",
    "body_filter",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    log,
    "phasor:sdk-log/phase-log",
    "package phasor:sdk-log; world phase-log { export phasor:plugin/log@0.1.0; }",
    "export_log",
    "log",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);

phase_world!(
    timer,
    "phasor:sdk-timer/phase-timer",
    "package phasor:sdk-timer; world phase-timer { export phasor:plugin/timer@0.1.0; }",
    "export_timer",
    "timer",
    { "phasor:plugin/types@0.1.0": crate::bindings::phasor::plugin::types }
);
