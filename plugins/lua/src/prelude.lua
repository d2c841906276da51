-- Where Lua 5.2 differs from LuaJIT 2.1 and a few lines of Lua make up for it.
local type, select, next, rawget = type, select, next, rawget
local table, math, string, debug, package, os, io = table, math, string, debug, package, os, io

_VERSION = "Lua 5.1"
rawlen = nil

function table.getn(t) return #t end
function table.foreach(t, f)
  for k, v in next, t do
    local r = f(k, v)
    if r ~= nil then return r end
  end
end
function table.foreachi(t, f)
  for i = 1, #t do
    local r = f(i, t[i])
    if r ~= nil then return r end
  end
end
table.pack = nil
if not table.move then
  function table.move(a, f, e, t, b)
    b = b or a
    if e >= f then
      if t > e or t <= f or a ~= b then
        for i = 0, e - f do b[t + i] = a[f + i] end
      else
        for i = e - f, 0, -1 do b[t + i] = a[f + i] end
      end
    end
    return b
  end
end

function gcinfo() return math.floor(collectgarbage("count")) end

function newproxy(base)
  local meta
  if base == true then meta = {} elseif base then meta = debug.getmetatable(base) end
  return setmetatable({}, meta)
end

local random = math.random
function math.random(m, n)
  if m == nil then return random() end
  if n == nil then m, n = 1, m end
  if m > n then error("bad argument #" .. (m == 1 and 1 or 2) .. " to 'random' (interval is empty)", 2) end
  return m + math.floor(random() * (n - m + 1))
end

function os.execute() error("os.execute is not offered", 2) end
function os.exit() error("os.exit is not offered: ngx.exit ends a request", 2) end
function os.tmpname() error("os.tmpname is not offered", 2) end
os.setlocale = function() return "C" end
io.popen = function() error("io.popen is not offered", 2) end
io.tmpfile = function() error("io.tmpfile is not offered", 2) end

local function off() return false, "NYI" end
jit = {
  version = "LuaJIT 2.1.0-beta3", version_num = 20100, os = "Other", arch = "wasm32",
  on = function() end, off = function() end, flush = function() end,
  status = function() return false end,
  opt = { start = off },
}
package.loaded.jit = jit
package.preload["jit.opt"] = function() return jit.opt end
package.preload.ffi = function()
  error("ffi is not offered: there is no machine code to call", 3)
end
