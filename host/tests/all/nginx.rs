//! A real nginx with ngx_lua that runs the same case files, so that what the cases expect of `ngx.*`
//! is OpenResty's behaviour and not our memory of it. Translates the part of `phasor.toml` that Lua
//! cases use; anything else is refused, never guessed.

use std::fmt::Write;
use std::process::Command;
use std::sync::Arc;

use regex::Regex;

use crate::case::CaseFile;
use crate::cases::Target;
use crate::harness::{Folder, free_port};
use crate::process::{PATIENCE, Process};

/// Where Debian puts nginx's modules.
pub(crate) const MODULES: &str = "/usr/lib/nginx/modules";

/// A running nginx.
pub(crate) struct Nginx {
    process: Process,
    port: u16,
    // Removed after the process has ended.
    _folder: Folder,
}

impl Nginx {
    /// Starts one for a case file; an error tells what of its configuration has no counterpart.
    pub(crate) fn start(file: &CaseFile) -> Result<Self, String> {
        let folder = Folder::new();
        for (name, text) in &file.files {
            folder.write(name, text);
        }
        let port = free_port();
        let text = translate(&file.full_config(), &folder, port)?;
        Ok(Self::start_with(folder, &text, port))
    }

    /// Starts one with a configuration as nginx reads it.
    pub(crate) fn start_with(folder: Folder, text: &str, port: u16) -> Self {
        let config = folder.write("nginx.conf", text);
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder.path()).arg("-c").arg(config);
        let process = Process::start(command);
        let ready = Regex::new("using the \"epoll\" event method").unwrap();
        assert!(
            process.stderr.wait_for(&ready, 0, PATIENCE).is_some(),
            "nginx does not start:\n{}\n{text}",
            process.stderr.since(0)
        );
        Self {
            process,
            port,
            _folder: folder,
        }
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.process.signal(rustix::process::Signal::KILL);
        self.process.wait(PATIENCE);
    }

    /// Where its cases go.
    pub(crate) fn target(&self) -> Target {
        Target {
            port: self.port,
            log: Arc::clone(&self.process.stderr),
            is_reference: true,
        }
    }
}

/// What stands around the `server` block's contents.
pub(crate) fn frame(http: &str, server: &str, port: u16) -> String {
    format!(
        "load_module {MODULES}/ndk_http_module.so;\n\
         load_module {MODULES}/ngx_http_lua_module.so;\n\
         daemon off; master_process off; pid nginx.pid;\n\
         error_log stderr info;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         access_log off; default_type text/plain; client_body_temp_path tmp-body;\n\
         proxy_temp_path tmp-proxy; fastcgi_temp_path tmp-f; uwsgi_temp_path tmp-u; scgi_temp_path tmp-s;\n\
         {http}\n\
         server {{ listen 127.0.0.1:{port}; server_name localhost;\n{server}\n}}\n}}\n"
    )
}

fn translate(config: &str, folder: &Folder, port: u16) -> Result<String, String> {
    let document: toml::Table = toml::from_str(config).map_err(|error| error.to_string())?;
    let mut http = String::new();
    let mut server = String::new();
    let mut lua = Snippets { folder, count: 0 };
    for (key, value) in &document {
        match key.as_str() {
            "shared" => {
                for (name, dict) in value.as_table().into_iter().flatten() {
                    let size = dict
                        .get("size")
                        .and_then(toml::Value::as_str)
                        .unwrap_or("1m");
                    writeln!(http, "lua_shared_dict {name} {size};").unwrap();
                }
            }
            "plugin" => plugin(value, &mut http, &mut lua)?,
            "server" => {
                if let Some(phases) = value.get("lua") {
                    phase_blocks(phases, &mut server, &mut lua)?;
                }
            }
            "route" => {
                for entry in value.as_array().into_iter().flatten() {
                    route(entry, &mut server, &mut lua)?;
                }
            }
            other => return Err(format!("no counterpart of [{other}]")),
        }
    }
    Ok(frame(&http, &server, port))
}

/// Writes each piece of Lua to a file of its own: nothing needs to be quoted then.
struct Snippets<'a> {
    folder: &'a Folder,
    count: usize,
}

impl Snippets<'_> {
    fn file(&mut self, value: &toml::Value) -> Result<String, String> {
        if let Some(file) = value.get("file").and_then(toml::Value::as_str) {
            return Ok(self.folder.path().join(file).display().to_string());
        }
        let text = value
            .as_str()
            .ok_or_else(|| format!("Lua is no text: {value}"))?;
        self.count += 1;
        let path = self
            .folder
            .write(&format!("snippet-{}.lua", self.count), text);
        Ok(path.display().to_string())
    }
}

fn plugin(plugins: &toml::Value, http: &mut String, lua: &mut Snippets<'_>) -> Result<(), String> {
    for (name, plugin) in plugins.as_table().into_iter().flatten() {
        if name != "lua" {
            return Err(format!("no counterpart of [plugin.{name}]"));
        }
        let config = plugin.get("config").and_then(toml::Value::as_table);
        for (key, value) in config.into_iter().flatten() {
            match key.as_str() {
                "path" => {
                    let folder = lua.folder.path().display();
                    let path = value.as_str().unwrap_or_default();
                    writeln!(http, "lua_package_path '{folder}/{path};;';").unwrap();
                }
                "init" | "init_worker" | "exit_worker" => {
                    writeln!(http, "{key}_by_lua_file {};", lua.file(value)?).unwrap();
                }
                other => return Err(format!("no counterpart of plugin.lua.config.{other}")),
            }
        }
    }
    Ok(())
}

fn phase_blocks(
    phases: &toml::Value,
    out: &mut String,
    lua: &mut Snippets<'_>,
) -> Result<(), String> {
    for (phase, value) in phases.as_table().into_iter().flatten() {
        writeln!(out, "{phase}_by_lua_file {};", lua.file(value)?).unwrap();
    }
    Ok(())
}

fn route(route: &toml::Value, out: &mut String, lua: &mut Snippets<'_>) -> Result<(), String> {
    let text = |key: &str| route.get(key).and_then(toml::Value::as_str);
    let location = match (text("path"), text("name"), text("regex")) {
        (Some(path), _, _) => match path.strip_suffix('*') {
            Some(prefix) if route.get("final").is_some() => format!("^~ {prefix}"),
            Some(prefix) => prefix.to_owned(),
            None => format!("= {path}"),
        },
        (_, Some(name), _) => format!("@{name}"),
        (_, _, Some(regex)) => format!("~ \"{regex}\""),
        _ => return Err(format!("a route without path: {route}")),
    };
    writeln!(out, "location {location} {{").unwrap();
    for (key, value) in route.as_table().into_iter().flatten() {
        match key.as_str() {
            "path" | "name" | "regex" | "final" => {}
            "internal" => out.push_str("internal;\n"),
            "lua" => phase_blocks(value, out, lua)?,
            "set" => {
                for (name, value) in value.as_table().into_iter().flatten() {
                    match value.get("lua") {
                        Some(code) => {
                            writeln!(out, "set_by_lua_file ${name} {};", lua.file(code)?).unwrap();
                        }
                        None => {
                            writeln!(out, "set ${name} {value};").unwrap();
                        }
                    }
                }
            }
            "respond" => {
                let status = value
                    .get("status")
                    .and_then(toml::Value::as_integer)
                    .unwrap_or(200);
                let body = value
                    .get("body")
                    .and_then(toml::Value::as_str)
                    .unwrap_or_default();
                writeln!(out, "return {status} {body:?};").unwrap();
            }
            "body_limit" => {
                writeln!(
                    out,
                    "client_max_body_size {};",
                    value.as_str().unwrap_or("1m")
                )
                .unwrap();
            }
            other => return Err(format!("no counterpart of route.{other}")),
        }
    }
    out.push_str("}\n");
    Ok(())
}
