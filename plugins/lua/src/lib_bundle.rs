//! Modules of OpenResty that are written in Lua: their text lies in the component and is compiled when
//! somebody requires it and finds nothing of that name on `package.path`.

macro_rules! module {
    ($name:literal, $file:literal) => {
        ($name, $file, include_str!(concat!("../lua/", $file)))
    };
}

/// Name, file as messages name it, text.
const MODULES: &[(&str, &str, &str)] = &[
    module!("ffi", "ffi.lua"),
    module!("ngx.ssl", "ngx/ssl.lua"),
    module!("resty.dns.resolver", "resty/dns/resolver.lua"),
    module!("resty.http", "resty/http.lua"),
    module!("resty.http_body", "resty/http_body.lua"),
    module!("resty.http_headers", "resty/http_headers.lua"),
    module!("resty.http_proxy", "resty/http_proxy.lua"),
    module!("resty.lock", "resty/lock.lua"),
    module!("resty.memcached", "resty/memcached.lua"),
    module!("resty.mlcache", "resty/mlcache.lua"),
    module!("resty.mysql", "resty/mysql.lua"),
    module!("resty.redis", "resty/redis.lua"),
    module!("resty.upload", "resty/upload.lua"),
    module!("resty.websocket.client", "resty/websocket/client.lua"),
    module!("resty.websocket.protocol", "resty/websocket/protocol.lua"),
    module!("resty.websocket.server", "resty/websocket/server.lua"),
];

/// The file and the text of a module.
pub(crate) fn find(name: &str) -> Option<(&'static str, &'static str)> {
    let found = MODULES.iter().find(|(known, _, _)| *known == name);
    found.map(|(_, file, text)| (*file, *text))
}
