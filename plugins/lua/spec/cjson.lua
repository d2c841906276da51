local cjson = require "cjson"
local safe = require "cjson.safe"
local function err(f, ...) local ok, e = pcall(f, ...) return (tostring(e):gsub("^[^ ]-:%d+: ", ""):gsub("Infinity$", "Inf")) end
ngx.say(cjson.encode({1, 2, 3}), cjson.encode({}), cjson.encode({a = 1}), cjson.encode("x"), cjson.encode(true), cjson.encode(cjson.null), cjson.encode(nil))
for _, n in ipairs {0, 1, -1, 1.5, 0.1, 1/3, 1e15, 1e14, 99999999999999, 123456789012345678, 1e100, -1e-5, 0.0001, 1e-10, 2^53, 100, 1e21, 12345.678, -0.5} do ngx.say(cjson.encode(n)) end
ngx.say(cjson.encode("a\"b\\c/d\b\f\n\r\t\0\1\127é"))
ngx.say(cjson.encode({{1, {2}}, {a = {b = {}}}}))
ngx.say(cjson.encode({1, nil, 3}), " ", cjson.encode({[1] = 1, [5] = 5}))
ngx.say(cjson.encode({[1.5] = 1}), cjson.encode({[-1] = 1}), cjson.encode({[0] = 1}))
ngx.say(err(cjson.encode, {[1000] = 1}))
ngx.say(err(cjson.encode, function() end))
ngx.say(err(cjson.encode, {x = print}))
ngx.say(err(cjson.encode, {[true] = 1}))
ngx.say(err(cjson.encode, 1/0), " ", err(cjson.encode, 0/0))
ngx.say(tostring((safe.encode(print))), " ", select(2, safe.encode(print)))
local deep = {} local d = deep for i = 1, 1001 do d[1] = {} d = d[1] end
ngx.say(err(cjson.encode, deep))
for _, s in ipairs {'[1,2,3]', '{"a":{"b":[true,false,null]}}', '"x"', '1.5e3', '-0.5', '"\\u00e9\\ud83d\\ude00\\n\\/"', '[ ]', ' {} ', '[1e400]'} do
    ngx.say(cjson.encode_invalid_numbers("null") == "null" and cjson.encode(cjson.decode(s)))
end
cjson.encode_invalid_numbers(false)
for _, s in ipairs {'', 'x', '[', '[1', '[1,', '[1,]', '{', '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', '{1:2}', '"abc', '"\\x"', '"\\u12"', '"\\ud800x"', '"\\udc00"', '[1 2]', '1 2', 'nul', 'tru', '-', '-x', '{"a" 1}', '[,]', ']', '{,}', '.5', '+1', 'nanx', '[1}', 'a"', "'x'"} do
    local v, e = safe.decode(s)
    ngx.say(s, " -> ", tostring(v), " ", tostring(e))
end
ngx.say(tostring(cjson.decode("[inf]")[1]), " ", tostring(cjson.decode("[-Infinity]")[1]), " ", cjson.decode("0x10"), " ", cjson.decode("012"))
cjson.decode_invalid_numbers(false)
ngx.say(err(cjson.decode, "[inf]"), "; ", err(cjson.decode, "0x10"), "; ", err(cjson.decode, "012"))
cjson.decode_invalid_numbers(true)
ngx.say(err(cjson.decode, string.rep("[", 1001)))
ngx.say(err(cjson.decode, "[\0]"), " ", err(cjson.decode), " ", err(cjson.decode, {}))
ngx.say(tostring(cjson.decode("null") == ngx.null), " ", tostring(cjson.decode("null") == cjson.null), " ", type(cjson.null))
ngx.say(cjson.encode_max_depth(), cjson.decode_max_depth(), cjson.encode_number_precision(), tostring(cjson.encode_keep_buffer()))
ngx.say(cjson.encode_sparse_array())
cjson.encode_sparse_array(true)
ngx.say(cjson.encode({[1000] = 1}))
cjson.encode_number_precision(3)
ngx.say(cjson.encode(math.pi), " ", cjson.encode(1234567))
cjson.encode_number_precision(14)
local c2 = cjson.new()
ngx.say(tostring(c2.encode_sparse_array()), " ", c2.encode({1}))
ngx.say(err(cjson.encode_max_depth, 0), " ", err(cjson.encode_keep_buffer, "x"))
ngx.say(#cjson.encode(string.rep("ab", 5000)), " ", #cjson.decode('"' .. string.rep("ab", 5000) .. '"'))
