local all = {} for i = 0, 255 do all[#all + 1] = string.char(i) end all = table.concat(all)
ngx.say(ngx.escape_uri(all))
for i = 0, 6 do if i ~= 1 then ngx.say(i, " ", (ngx.escape_uri(all, i):gsub("[%z\1-\31\127-\255]", "?"))) end end
ngx.say(ngx.escape_uri(nil), ngx.escape_uri(12), ngx.escape_uri(true))
ngx.say((pcall(ngx.escape_uri, "a", "x")), (pcall(ngx.escape_uri, "a", 9)))
ngx.say(ngx.unescape_uri("a%20b+c%zz%4"), ngx.unescape_uri("%41%e5%A5%bD?x"), ngx.unescape_uri(nil))
ngx.say(ngx.encode_args({foo = 3}), " ", ngx.encode_args({["b r"] = "hello world"}), " ", ngx.encode_args({a = {1, "x", true}}), " ", ngx.encode_args({a = true}), " ", ngx.encode_args({a = false}), "|", ngx.encode_args({}))
ngx.say((select(2, pcall(ngx.encode_args, {a = print})):gsub("^.-: ", "")), " ", (pcall(ngx.encode_args, {1})))
local function show(t, e)
    local out = {}
    for k, v in pairs(t) do
        if type(v) == "table" then local x = {} for i, y in ipairs(v) do x[i] = tostring(y) end v = "{" .. table.concat(x, ",") .. "}" end
        out[#out + 1] = k .. "=" .. tostring(v)
    end
    table.sort(out)
    return table.concat(out, ";") .. " " .. tostring(e)
end
for _, s in ipairs {"a=bar&b=foo", "a=1&a=2&a=3", "a&b=", "=x&y=1", "", "&&a=1&", "a=1=2&b", "a%20b=c+d", "a&a=1&a", "=", "%00=1"} do ngx.say(s, " ", show(ngx.decode_args(s))) end
ngx.say(show(ngx.decode_args("a=1&b=2&c=3", 2)), " ", show(ngx.decode_args("a=1&b=2", 2)), " ", show(ngx.decode_args("a=1&b=2", 0)))
for _, s in ipairs {"", "a", "ab", "abc", "hello, world", all} do
    ngx.say(ngx.encode_base64(s), " ", ngx.encode_base64(s, true), " ", tostring(ngx.decode_base64(ngx.encode_base64(s)) == s), tostring(ngx.decode_base64(ngx.encode_base64(s, true)) == s))
end
for _, s in ipairs {"YQ", "YQ==", "YQ=x", "Y", "Y*==", "YR", "=", "YWJj\n"} do ngx.say(s, " ", tostring(ngx.decode_base64(s))) end
ngx.say((pcall(ngx.decode_base64, 1)), (pcall(ngx.encode_base64, "a", 1)), ngx.encode_base64(12), ngx.encode_base64(nil))
local b = require "ngx.base64"
ngx.say(b.encode_base64url("\255\254\253a"), " ", tostring(b.decode_base64url("__79YQ") == "\255\254\253a"), " ", tostring(select(2, b.decode_base64url("+/"))), " ", tostring(select(2, b.encode_base64url(1))))
ngx.say(ngx.md5("hello"), " ", ngx.md5(""), " ", ngx.md5(nil), " ", ngx.md5(12))
ngx.say(ngx.encode_base64(ngx.md5_bin("hello")), " ", ngx.encode_base64(ngx.sha1_bin("hello")), " ", ngx.encode_base64(ngx.hmac_sha1("thisisverysecretstuff", "some string we want to sign")))
ngx.say(ngx.crc32_short("hello"), " ", ngx.crc32_long("hello, world"), " ", ngx.crc32_long(""))
ngx.say(ngx.quote_sql_str("a'b\"c\\d\n\r\t\0\8\26é"), ngx.quote_sql_str(""), ngx.quote_sql_str(12))
