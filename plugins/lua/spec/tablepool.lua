local pool = require "tablepool"
local t = pool.fetch("x", 4, 0)
t[1], t.a = 1, 2
pool.release("x", t)
local u = pool.fetch("x", 4, 0)
ngx.say(tostring(u == t), " ", tostring(next(u)))
pool.release("x", u, true)
ngx.say(tostring(pool.fetch("y", 0, 0) == u), " ", (pcall(pool.release, "x", nil)))
