local new, clear, nkeys = require "table.new", require "table.clear", require "table.nkeys"
local isarray, isempty, clone = require "table.isarray", require "table.isempty", require "table.clone"
local t = new(4, 2)
t[1], t.a, t.b = 1, 2, 3
ngx.say(nkeys(t), " ", #t, " ", tostring(isempty(t)))
clear(t)
ngx.say(nkeys(t), " ", tostring(isempty(t)), " ", tostring(next(t)))
ngx.say(tostring(isarray({})), tostring(isarray({1, 2})), tostring(isarray({a = 1})), tostring(isarray({1, nil, 3})), tostring(isarray({[100] = 1})), tostring(isarray({[1.5] = 1})), tostring(isarray({[0] = 1})))
local c = clone({1, 2, x = {5}})
ngx.say(c[1], c[2], c.x[1])
local m = table.move({1, 2, 3, 4, 5}, 2, 4, 3)
ngx.say(table.concat(m, ","))
ngx.say(table.concat(table.move({1, 2, 3, 4, 5}, 3, 5, 1), ","))
ngx.say(table.concat(table.move({1, 2}, 1, 2, 2, {9}), ","))
ngx.say(table.getn({1, 2, 3}), " ", table.maxn({1, [10] = 2, a = 1}))
ngx.say(table.foreach({7}, function(k, v) if v == 7 then return k .. "!" end end))
table.foreachi({"x", "y"}, function(i, v) ngx.say(i, v) end)
ngx.say((pcall(nkeys, 1)), (pcall(clear)))
