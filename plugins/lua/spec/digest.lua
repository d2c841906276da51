local str = require "resty.string"
local function hash(name, text)
    local h = require("resty." .. name):new()
    h:update(text:sub(1, 2))
    h:update(text:sub(3))
    return str.to_hex(h:final())
end
for _, name in ipairs { "md5", "sha1", "sha224", "sha256", "sha384", "sha512" } do
    ngx.say(name, " ", hash(name, "hello"))
end
local h = require("resty.md5"):new()
h:update("junk")
ngx.say(tostring(h:reset()), " ", tostring(h:update("hello world", 5)), " ", str.to_hex(h:final()))
ngx.say(str.atoi("42abc"), " ", str.atoi(" -7"), " ", str.atoi("x"))
local random = require "resty.random"
ngx.say(#random.bytes(16), " ", #random.bytes(300, true), " ", tostring(random.bytes(16) ~= random.bytes(16)))
