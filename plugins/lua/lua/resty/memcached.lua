-- `resty.memcached`: a memcached connection over a cosocket, the text protocol.
local tcp = ngx.socket.tcp
local escape_uri, unescape_uri = ngx.escape_uri, ngx.unescape_uri
local concat = table.concat
local match, sub, find = string.match, string.sub, string.find
local type, tostring, tonumber, setmetatable, ipairs, unpack = type, tostring, tonumber, setmetatable, ipairs, unpack

local Memcached = { _VERSION = "0.17" }
local meta = { __index = Memcached }

function Memcached.new(_, options)
  local sock, err = tcp()
  if not sock then return nil, err end
  local escape, unescape = escape_uri, unescape_uri
  local transform = options and options.key_transform
  if transform then
    escape, unescape = transform[1], transform[2]
    if not escape or not unescape then
      return nil, "expecting key_transform = { escape, unescape } table"
    end
  end
  return setmetatable({ sock = sock, escape = escape, unescape = unescape }, meta)
end

for name, method in pairs { set_timeout = "settimeout", set_timeouts = "settimeouts", sslhandshake = "sslhandshake",
  connect = "connect", set_keepalive = "setkeepalive", get_reused_times = "getreusedtimes", close = "close" } do
  Memcached[name] = function(self, ...)
    local sock = self.sock
    if not sock then return nil, "not initialized" end
    return sock[method](sock, ...)
  end
end

local function fail(sock, err)
  if err == "timeout" then sock:close() end
  return nil, err
end

-- Sends a request and reads what comes, now or when the pipeline is committed.
local function ask(self, text, read, ...)
  local sock = self.sock
  if not sock then return nil, "not initialized" end
  local pipeline = self.pipeline
  if pipeline then
    pipeline[#pipeline + 1] = { text = text, read = read, n = select("#", ...), ... }
    return 1
  end
  local bytes, err = sock:send(text)
  if not bytes then return nil, err end
  return read(self, sock, ...)
end

-- One line; what is not `wanted` is an error.
local function expect(wanted)
  return function(_, sock)
    local line, err = sock:receive()
    if not line then return fail(sock, err) end
    if line == wanted then return 1 end
    return nil, line
  end
end
local stored, deleted, ok, touched = expect "STORED", expect "DELETED", expect "OK", expect "TOUCHED"

-- The values of a `get` or `gets` until END, in order; nil and an error when that goes wrong.
local function values(sock)
  local list = {}
  while true do
    local line, err = sock:receive()
    if not line then return fail(sock, err) end
    if line == "END" then return list end
    local key, flags, size, cas = match(line, "^VALUE (%S+) (%d+) (%d+) ?(%d*)$")
    if not key then return nil, line end
    local data
    data, err = sock:receive(tonumber(size))
    if not data then return fail(sock, err) end
    local rest
    rest, err = sock:receive(2)
    if not rest then return fail(sock, err) end
    list[#list + 1] = { key, data, flags, cas }
  end
end

local function one(with_cas)
  return function(_, sock)
    local list, err = values(sock)
    if not list then
      if with_cas then return nil, nil, nil, err end
      return nil, nil, err
    end
    local found = list[1]
    if not found then return nil end
    if with_cas then return found[2], found[3], found[4] end
    return found[2], found[3]
  end
end

local function several(with_cas)
  return function(self, sock)
    local list, err = values(sock)
    if not list then return nil, err end
    local results = {}
    for _, found in ipairs(list) do
      local value = { found[2], found[3] }
      if with_cas then value[3] = found[4] end
      results[self.unescape(found[1])] = value
    end
    return results
  end
end

for verb, with_cas in pairs { get = false, gets = true } do
  local read_one, read_several = one(with_cas), several(with_cas)
  Memcached[verb] = function(self, key)
    if type(key) ~= "table" then
      return ask(self, verb .. " " .. self.escape(key) .. "\r\n", read_one)
    end
    if #key == 0 then return {}, nil end
    local names = {}
    for i, name in ipairs(key) do names[i] = self.escape(name) end
    return ask(self, verb .. " " .. concat(names, " ") .. "\r\n", read_several)
  end
end

local function flat(value)
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  for i, part in ipairs(value) do parts[i] = flat(part) end
  return concat(parts)
end

local function store(self, verb, key, value, exptime, flags, cas)
  value = flat(value)
  local head = verb .. " " .. self.escape(key) .. " " .. (flags or 0) .. " " .. (exptime or 0) .. " " .. #value
  if cas then head = head .. " " .. cas end
  return ask(self, head .. "\r\n" .. value .. "\r\n", stored)
end

for _, verb in ipairs { "set", "add", "replace", "append", "prepend" } do
  Memcached[verb] = function(self, key, value, exptime, flags)
    return store(self, verb, key, value, exptime, flags)
  end
end

function Memcached.cas(self, key, value, cas, exptime, flags)
  return store(self, "cas", key, value, exptime, flags, cas)
end

function Memcached.touch(self, key, exptime)
  return ask(self, "touch " .. self.escape(key) .. " " .. exptime .. "\r\n", touched)
end

function Memcached.delete(self, key)
  return ask(self, "delete " .. self.escape(key) .. "\r\n", deleted)
end

function Memcached.flush_all(self, time)
  return ask(self, time and "flush_all " .. time .. "\r\n" or "flush_all\r\n", ok)
end

function Memcached.verbosity(self, level)
  return ask(self, "verbosity " .. level .. "\r\n", ok)
end

local function counted(_, sock)
  local line, err = sock:receive()
  if not line then return fail(sock, err) end
  local number = match(line, "^(%d+)")
  if number then return number end
  return nil, line
end

for _, verb in ipairs { "incr", "decr" } do
  Memcached[verb] = function(self, key, delta)
    return ask(self, verb .. " " .. self.escape(key) .. " " .. delta .. "\r\n", counted)
  end
end

local function lines(_, sock)
  local list = {}
  while true do
    local line, err = sock:receive()
    if not line then return fail(sock, err) end
    if line == "END" or line == "RESET" then return list end
    if find(line, "ERROR", 1, true) then return nil, line end
    list[#list + 1] = line
  end
end

function Memcached.stats(self, arguments)
  return ask(self, arguments and "stats " .. arguments .. "\r\n" or "stats\r\n", lines)
end

function Memcached.version(self)
  return ask(self, "version\r\n", function(_, sock)
    local line, err = sock:receive()
    if not line then return fail(sock, err) end
    local version = match(line, "^VERSION (.+)$")
    if version then return version end
    return nil, line
  end)
end

function Memcached.quit(self)
  return ask(self, "quit\r\n", function() return 1 end)
end

function Memcached.init_pipeline(self)
  self.pipeline = {}
end

function Memcached.cancel_pipeline(self)
  self.pipeline = nil
end

-- Each result is a table of what the method would have returned.
function Memcached.commit_pipeline(self)
  local pipeline, sock = self.pipeline, self.sock
  if not pipeline then return nil, "no pipeline" end
  self.pipeline = nil
  if not sock then return nil, "not initialized" end
  local texts = {}
  for i, request in ipairs(pipeline) do texts[i] = request.text end
  local bytes, err = sock:send(concat(texts))
  if not bytes then return nil, err end
  local results = {}
  for i, request in ipairs(pipeline) do
    results[i] = { request.read(self, sock, unpack(request, 1, request.n)) }
  end
  return results
end

return Memcached
