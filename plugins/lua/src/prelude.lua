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
table.pack, table.unpack = nil, nil
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

local new_userdata, proxies = new_userdata, setmetatable({}, { __mode = "k" })
_G.new_userdata = nil
function newproxy(base)
  local metatable
  if base == true then metatable = {}
  elseif base then
    metatable = type(base) == "userdata" and debug.getmetatable(base)
    if not metatable or not proxies[metatable] then
      error("bad argument #1 to 'newproxy' (boolean or proxy expected)", 2)
    end
  end
  if metatable then proxies[metatable] = true end
  return new_userdata(metatable)
end

local random, floor = math.random, math.floor
function math.random(m, n)
  if m == nil then return random() end
  if n == nil then m, n = 1, m end
  return m + floor(random() * (n - m + 1))
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

-- The metatable of a request's globals is the same for all requests: nobody gets hold of it.
local shared, hidden = _G, nil
function hide_metatable(metatable) hidden = metatable end
local function veiled(metatable)
  if metatable ~= nil and metatable == hidden then
    return { __index = function(_, name) return shared[name] end }
  end
  return metatable
end
local debug_getmetatable, plain_getmetatable = debug.getmetatable, getmetatable
function getmetatable(v) return veiled(plain_getmetatable(v)) end
function debug.getmetatable(v) return veiled(debug_getmetatable(v)) end

-- What would reach another request's globals, or take the CPU budget's hook away, is not offered.
for _, name in ipairs { "getregistry", "getupvalue", "setupvalue", "upvaluejoin", "upvalueid", "getuservalue", "setuservalue", "setmetatable" } do
  debug[name] = nil
end
function debug.sethook() end
function debug.gethook() end
local plain_getinfo = debug.getinfo
function debug.getinfo(level, what, ...)
  if type(level) == "number" then level = level + 1 end
  local info = plain_getinfo(level, what, ...)
  if info then info.func = nil end
  return info
end
package.loaded._G = nil
function package.seeall(module)
  local metatable = plain_getmetatable(module)
  if not metatable then
    metatable = {}
    setmetatable(module, metatable)
  end
  metatable.__index = function(_, name) return shared[name] end
end
local plain_getfenv, plain_setfenv = getfenv, setfenv
function debug.getfenv(f)
  if type(f) == "function" then return plain_getfenv(f) end
end
function debug.setfenv(f, environment) return plain_setfenv(f, environment) end
local plain_collectgarbage = collectgarbage
-- The collector's pace is the plugin's own: these answer as they would at LuaJIT's default.
local pace = { stop = 0, restart = 0, setpause = 200, setstepmul = 200, isrunning = true }
function collectgarbage(what, argument)
  local answer = pace[what]
  if answer ~= nil then return answer end
  return plain_collectgarbage(what, argument)
end

-- `require` in Lua, so that a module may wait while it loads; the host finds the file, and a module
-- that somebody loads already is waited for.
local find_module, loaded, preload = find_module, package.loaded, package.preload
local loading, claim_module, end_module = loading_modules, claim_module, end_module
local read_source = read_source
shared.read_source = nil
shared.find_module, shared.loading_modules, shared.claim_module, shared.end_module = nil, nil, nil, nil
package.searchers, package.searchpath, package.loadlib = nil, nil, nil
package.loaders = { function(name) return preload[name] end }
local function load_module(name)
  local loader = preload[name]
  if loader == nil then
    local file, text = find_module(name, package.path)
    if not file then
      error("module '" .. name .. "' not found:\n\tno field package.preload['" .. name .. "']" .. text, 4)
    end
    local wrong
    loader, wrong = loadstring(text, "@" .. file)
    if not loader then
      error("error loading module '" .. name .. "' from file '" .. file .. "':\n\t" .. wrong, 4)
    end
    setfenv(loader, shared)
  end
  local result = loader(name)
  if result ~= nil then loaded[name] = result
  elseif loaded[name] == nil then loaded[name] = true end
end
function require(name)
  if type(name) ~= "string" and type(name) ~= "number" then
    error("bad argument #1 to 'require' (string expected, got " .. type(name) .. ")", 2)
  end
  name = name .. ""
  while true do
    local module = loaded[name]
    if module and not loading[name] then return module end
    local mine = claim_module(name)
    if mine then break end
    if mine == false then
      if module then return module end
      error("loop or previous error loading module '" .. name .. "'", 2)
    end
  end
  -- Between the look and the claim another request may have loaded it.
  if loaded[name] then
    end_module(name)
    return loaded[name]
  end
  local fine, wrong = pcall(load_module, name)
  -- The next try loads it anew.
  if not fine then loaded[name] = nil end
  end_module(name)
  if not fine then error(wrong, 0) end
  return loaded[name]
end

-- Files are found by the host, as modules are.
local load, plain_sub, plain_find = load, string.sub, string.find
function loadfile(file, mode, ...)
  if type(file) ~= "string" and type(file) ~= "number" then
    error("bad argument #1 to 'loadfile' (string expected, got " .. (file == nil and "no value" or type(file)) .. ")", 2)
  end
  local text, wrong = read_source(file .. "")
  if not text then return nil, wrong end
  if plain_sub(text, 1, 3) == "\239\187\191" then text = plain_sub(text, 4) end
  if plain_sub(text, 1, 1) == "#" then
    -- The line stays: messages count it.
    text = plain_sub(text, plain_find(text, "\n", 1, true) or #text + 1)
  end
  return load(text, "@" .. file, mode, ...)
end
local plain_loadfile = loadfile
function dofile(file)
  if type(file) ~= "string" and type(file) ~= "number" then
    error("bad argument #1 to 'dofile' (string expected, got " .. (file == nil and "no value" or type(file)) .. ")", 2)
  end
  local chunk, wrong = plain_loadfile(file)
  if not chunk then error(wrong, 0) end
  return chunk()
end

-- What calls back into Lua is Lua, so that the callback may wait.
local plain_tostring = tostring
function tostring(...)
  if select("#", ...) == 0 then error("bad argument #1 to 'tostring' (value expected)", 2) end
  local v = ...
  local metatable = debug_getmetatable(v)
  local text = metatable and rawget(metatable, "__tostring")
  if text then return text(v) end
  return plain_tostring(v)
end

local function merge_sort(t, n, before)
  local from, to, width = t, {}, 1
  for low = 1, n, 8 do
    for i = low + 1, low + 7 < n and low + 7 or n do
      local v, j = t[i], i - 1
      while j >= low and before(v, t[j]) do
        t[j + 1] = t[j]
        j = j - 1
      end
      t[j + 1] = v
    end
  end
  width = 8
  while width < n do
    for low = 1, n, 2 * width do
      local middle, high = low + width, low + 2 * width
      if middle > n + 1 then middle = n + 1 end
      if high > n + 1 then high = n + 1 end
      local i, j = low, middle
      for k = low, high - 1 do
        if i < middle and (j >= high or not before(from[j], from[i])) then
          to[k] = from[i]
          i = i + 1
        else
          to[k] = from[j]
          j = j + 1
        end
      end
    end
    from, to = to, from
    width = 2 * width
  end
  if from ~= t then
    for i = 1, n do t[i] = from[i] end
  end
end
local plain_sort = table.sort
function table.sort(t, before)
  if before == nil or type(t) ~= "table" then return plain_sort(t) end
  if type(before) ~= "function" then
    error("bad argument #2 to 'sort' (function expected, got " .. type(before) .. ")", 2)
  end
  merge_sort(t, #t, before)
end

local plain_gsub, find, sub, concat = string.gsub, string.find, string.sub, table.concat
local function replacement(by, kind, whole, first)
  local key = first
  if first == nil then key = whole end
  return by[key]
end
local function called(by, whole, first, ...)
  if first == nil then return by(whole) end
  return by(first, ...)
end
local function piece(by, kind, subject, from, to, ...)
  local whole, value = sub(subject, from, to), nil
  if kind == "function" then value = called(by, whole, ...) else value = replacement(by, kind, whole, (...)) end
  if not value then return whole end
  kind = type(value)
  if kind ~= "string" and kind ~= "number" then
    error("invalid replacement value (a " .. kind .. ")", 3)
  end
  return value
end
local function next_piece(by, kind, subject, from, to, ...)
  if not from then return nil end
  return from, to, piece(by, kind, subject, from, to, ...)
end
function string.gsub(subject, pattern, by, most)
  local kind = type(by)
  if kind ~= "function" and not (kind == "table" and plain_getmetatable(by)) then
    return plain_gsub(subject, pattern, by, most)
  end
  if type(subject) == "number" then subject = subject .. "" end
  if type(subject) ~= "string" then
    error("bad argument #1 to 'gsub' (string expected, got " .. type(subject) .. ")", 2)
  end
  most = most or #subject + 1
  local out, count, at, anchored = {}, 0, 1, sub(pattern, 1, 1) == "^"
  while count < most and at <= #subject + 1 do
    local from, to, value = next_piece(by, kind, subject, find(subject, pattern, at))
    if not from then break end
    count = count + 1
    out[#out + 1] = sub(subject, at, from - 1)
    out[#out + 1] = value
    if to < from then
      out[#out + 1] = sub(subject, from, from)
      at = from + 1
    else
      at = to + 1
    end
    if anchored then break end
  end
  out[#out + 1] = sub(subject, at)
  return concat(out), count
end

-- Modules that lua-resty-core brings and that are a few lines over what is here already.
preload["ngx.resp"] = function()
  local function add_header(name, value)
    local old = ngx.header[name]
    if old == nil then ngx.header[name] = value return end
    local all = type(old) == "table" and old or { old }
    for _, v in ipairs(type(value) == "table" and value or { value }) do all[#all + 1] = v end
    ngx.header[name] = all
  end
  return { add_header = add_header, set_status = function(status) ngx.status = status end }
end
preload["ngx.req"] = function()
  local function add_header(name, value)
    local old = ngx.req.get_headers(0)[name]
    local all = type(old) == "table" and old or { old }
    for _, v in ipairs(type(value) == "table" and value or { value }) do all[#all + 1] = v end
    ngx.req.set_header(name, all)
  end
  return { add_header = add_header }
end
preload["ngx.process"] = function()
  return {
    type = function() return ngx.get_phase() == "init" and "master" or "worker" end,
    get_master_pid = function() return ngx.worker.pid() end,
    enable_privileged_agent = function() return nil, "the privileged agent is not offered" end,
    signal_graceful_exit = function() error("signal_graceful_exit is not offered: workers are threads", 2) end,
  }
end
preload["resty.core.base"] = function()
  return {
    version = "0.1.31", FFI_OK = 0, FFI_ERROR = -1, FFI_AGAIN = -2, FFI_BUSY = -3, FFI_DONE = -4,
    FFI_DECLINED = -5, FFI_NO_REQ_CTX = -100, FFI_BAD_CONTEXT = -101,
    new_tab = require "table.new", clear_tab = require "table.clear",
    allows_subsystem = function() end,
  }
end
preload["resty.core.ctx"] = function()
  return { _VERSION = "0.1.31", get_ctx_table = function() return ngx.ctx end }
end
for name in ("base64 coroutine exit hash misc ndk param phase request response shdict socket uri utils var worker"):gmatch("%a[%w]*") do
  preload["resty.core." .. name] = function() return { version = "0.1.31" } end
end
preload["resty.core"] = function() return { version = "0.1.31" } end

function ngx.req.set_body_file(name, clean)
  if type(name) ~= "string" then
    error("bad argument #1 to 'set_body_file' (string expected, got " .. (name == nil and "no value" or type(name)) .. ")", 2)
  end
  local file, wrong = io.open(name, "rb")
  if not file then error(wrong, 2) end
  local data = file:read("*a")
  file:close()
  ngx.req.set_body_data(data)
  if clean then os.remove(name) end
end

-- What OpenResty's bundle has behind `ndk.set_var`: the directives of set-misc with one argument.
local function hex(text)
  return (plain_gsub(text, ".", function(c) return ("%02x"):format(c:byte()) end))
end
local escapes = {
  ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
}
local set_var = {
  set_escape_uri = function(text) return ngx.escape_uri(text) end,
  set_unescape_uri = function(text) return ngx.unescape_uri(text) end,
  set_quote_sql_str = function(text) return ngx.quote_sql_str(text) end,
  set_quote_json_str = function(text)
    if text == "" then return "null" end
    return '"' .. plain_gsub(text, '["\\%c]', function(c) return escapes[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
  end,
  set_md5 = function(text) return ngx.md5(text) end,
  set_sha1 = function(text) return hex(ngx.sha1_bin(text)) end,
  set_encode_base64 = function(text) return ngx.encode_base64(text) end,
  set_decode_base64 = function(text) return ngx.decode_base64(text) or "" end,
  set_encode_hex = hex,
  set_decode_hex = function(text)
    if #text % 2 ~= 0 or plain_find(text, "%X") then return "" end
    return (plain_gsub(text, "%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
  end,
}
ndk = {
  set_var = setmetatable({}, {
    __index = function(_, name)
      local convert = set_var[name]
      if not convert then
        error('ndk.set_var: directive "' .. tostring(name) .. '" not found or does not use ndk_set_var_value', 2)
      end
      return function(text) return convert(type(text) == "string" and text or plain_tostring(text)) end
    end,
  }),
}
