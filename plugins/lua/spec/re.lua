local function show(m)
    if type(m) ~= "table" then return tostring(m) end
    local out = {}
    for i = 0, #m do out[#out + 1] = tostring(m[i]) end
    local names = {}
    for k, v in pairs(m) do
        if type(k) == "string" then
            names[#names + 1] = k .. "=" .. (type(v) == "table" and "{" .. table.concat(v, ",") .. "}" or tostring(v))
        end
    end
    table.sort(names)
    return table.concat(out, "|") .. " " .. table.concat(names, " ")
end
local re = ngx.re
ngx.say(show(re.match("hello, 1234", "([0-9])[0-9]+")))
ngx.say(show(re.match("hello", "x")))
ngx.say(show(re.match("HELLO 12", "hello (\\d+)", "ijo")))
ngx.say(show(re.match("hello, world", "(world)|(hello)|(hi)")))
ngx.say(show(re.match("hello, 1234", "(?<first>[0-9])(?<rest>[0-9]+)(?<none>x)?")))
ngx.say(show(re.match("hello, world", "(?<named>\\w+), (?<named>\\w+)", "D")))
ngx.say(show(re.match("ab\ncd", "^cd$", "m")), show(re.match("ab\ncd", "b.c", "s")), show(re.match("ab", "a b # c", "x")))
ngx.say(show(re.match("xab", "ab", "a")), show(re.match("foobar", "foo|foobar", "d")))
ngx.say(show(re.match("好人", "^.$", "u")), show(re.match("好", "^.$", "u")), show(re.match("好", "^.$")), show(re.match("好", "^...$", "U")))
local ctx = {}
ngx.say(show(re.match("1234, hello", "[0-9]+", "", ctx)), ctx.pos)
ctx.pos = 3
ngx.say(show(re.match("1234, hello", "[0-9]+", "", ctx)), ctx.pos)
ngx.say(show(re.match(nil, "nil")), show(re.match(12, "1(2)")), show(re.match(true, "r")))
local res = {9, 9, 9, 9}
ngx.say(tostring(re.match("ab", "(a)(b)", "", nil, res) == res), " ", show(res))
ngx.say((select(2, pcall(re.match, "a", "a", "ik")):gsub("^.-: ", "")))
ngx.say(tostring((re.match("a", "(a"))), " ", type(select(2, re.match("a", "(a"))))
ngx.say(re.find("hello, 1234", "([0-9])([0-9]+)"))
ngx.say(re.find("hello, 1234", "([0-9])([0-9]+)", "jo", nil, 2))
ngx.say(tostring(re.find("hello", "(h)|(x)", "", nil, 2)), " ", tostring(re.find("hello", "zz")))
ngx.say(tostring(select(3, re.find("hello", "h", "", nil, 3))))
for m in re.gmatch("hello, world 42", "([a-z])([a-z]+)|([0-9]+)", "i") do ngx.say(show(m)) end
for m in re.gmatch("abc", "x*") do ngx.say("[" .. m[0] .. "]") end
local it = re.gmatch("a", "a")
ngx.say(show(it()), show(it()), show(it()))
ngx.say(re.sub("hello, 1234", "([0-9])[0-9]", "[$0][$1]"))
ngx.say(re.sub("hello, 1234", "[0-9]", "${0}00"))
ngx.say(re.sub("hello, 1234", "ell", "$$1$$"))
ngx.say(re.sub("hello", "z", "x"))
ngx.say(re.gsub("hello, world", "([a-z])[a-z]+", "[$0,$1,$2]", "i"))
ngx.say(re.gsub("hello", "x*", "-"))
ngx.say(re.gsub("abc", "", "."))
ngx.say(re.gsub("hello, 1234", "([0-9])([0-9])", function(m) return m[2] .. m[1] end))
ngx.say(re.gsub("a.b.c", "\\.", function() return nil end, "jo"))
ngx.say(re.gsub("abc", "x*", function(m) return "-" end))
ngx.say(re.sub("abc", "b", function(m) return 42 end))
ngx.say(re.sub(123, "2", 9))
ngx.say(tostring(re.sub("a", "a", "$")), tostring(select(3, re.sub("a", "a", "${1"))), tostring(select(3, re.sub("a", "a", "$x"))))
ngx.say(re.gsub("a b c d", " ", "", "jo"))
ngx.say(re.gsub("aéb", "é", "e", "u"))
ngx.say(#re.gsub(string.rep("ab", 10000), "a", "xyz"))
ngx.say(show(re.match("a\0b", "a\\x00b")))
ngx.say(show(re.match("foo-bar", "(?<=foo-)bar")), show(re.match("aXbX", ".*?X")))
ngx.say(show(re.match("", "")), show(re.match("ab", "(?:)", "", {pos = 3})))
