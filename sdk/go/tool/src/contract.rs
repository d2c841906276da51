//! The contract as this tool carries it, with a world for the plugin that is being built.

use anyhow::Result;
use wit_bindgen_core::wit_parser::{Resolve, SourceMap, WorldId};

/// The files of `wit/`.
const FILES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/wit.rs"));

/// The phases' interfaces, as WIT and as Go spell them. A plugin serves those whose Go function it
/// calls: `phasor.BodyFilter` makes it export `body-filter`.
pub(crate) const PHASES: [(&str, &str); 17] = [
    ("manifest", "Manifest"),
    ("init", "Init"),
    ("init-worker", "InitWorker"),
    ("exit-worker", "ExitWorker"),
    ("client-hello", "ClientHello"),
    ("certificate", "Certificate"),
    ("server-rewrite", "ServerRewrite"),
    ("set", "Set"),
    ("rewrite", "Rewrite"),
    ("access", "Access"),
    ("precontent", "Precontent"),
    ("content", "Content"),
    ("balancer", "Balancer"),
    ("header-filter", "HeaderFilter"),
    ("body-filter", "BodyFilter"),
    ("log", "Log"),
    ("timer", "Timer"),
];

/// The contract with a world that imports everything and exports these phases.
pub(crate) fn world(phases: &[&str]) -> Result<(Resolve, WorldId)> {
    let mut sources = SourceMap::new();
    for (name, text) in FILES {
        sources.push_str(name, *text);
    }
    let exports: String = phases
        .iter()
        .map(|phase| format!("    export {phase};\n"))
        .collect();
    let world = format!("world plugin {{\n    include imports;\n{exports}}}\n");
    sources.push_str("plugin.wit", world);
    let mut resolve = Resolve::default();
    let group = sources.parse().map_err(|(_, error)| error)?;
    let package = resolve.push_group(group)?;
    let world = resolve.select_world(&[package], Some("plugin"))?;
    Ok((resolve, world))
}

#[cfg(test)]
mod tests {
    use super::{PHASES, world};

    #[test]
    fn phases_are_those_of_the_contract() {
        let (resolve, own) = world(&PHASES.map(|(wit, _)| wit)).unwrap();
        let all = resolve
            .worlds
            .iter()
            .find(|(_, world)| world.name == "phases");
        let names = |world: &wit_bindgen_core::wit_parser::World| -> Vec<String> {
            let keys = world.exports.keys();
            keys.map(|key| resolve.name_world_key(key)).collect()
        };
        assert_eq!(names(&resolve.worlds[own]), names(all.unwrap().1));
    }
}
