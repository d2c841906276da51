-- `resty.redis`: a Redis connection over a cosocket, RESP2. Any method is a command.
local resp = require "phasor.resp"
local item, encode, send = resp.item, resp.encode, resp.send
local tcp = ngx.socket.tcp
local concat, remove, unpack = table.concat, table.remove, unpack
local byte, sub = string.byte, string.sub
local type, tostring, pairs, select = type, tostring, pairs, select
local rawget, setmetatable = rawget, setmetatable

local Redis = { _VERSION = "0.33" }
local meta = { __index = Redis }

-- A time-out while these wait says nothing of the connection.
local blocking = { blpop = true, brpop = true }

function Redis.new(_)
  local sock, err = tcp()
  if not sock then return nil, err end
  -- All that is asked for with each command is there: what is not, is looked for among the commands.
  return setmetatable({
    _sock = sock, _subscribed = false, _pipeline = false, _module = false, _messages = false,
  }, meta)
end

function Redis.set_timeout(self, milliseconds)
  local sock = self._sock
  if not sock then error("not initialized", 2) end
  sock:settimeout(milliseconds)
end

function Redis.set_timeouts(self, connect, send, read)
  local sock = self._sock
  if not sock then error("not initialized", 2) end
  sock:settimeouts(connect, send, read)
end

function Redis.connect(self, host, port, options)
  local sock = self._sock
  if not sock then return nil, "not initialized" end
  local unix = type(port) ~= "number" and type(host) == "string" and sub(host, 1, 5) == "unix:"
  if unix then options = port end
  if options ~= nil and type(options) ~= "table" then
    return nil, "bad argument #3 opts: must be a table"
  end
  self._subscribed = false
  self._channels = nil
  self._messages = false
  local ok, err
  if options and options.ssl and not options.pool then
    -- A connection without TLS, or to whoever it may be, must not come out of the pool.
    local own = { pool = concat({ "redis:tls", host, unix and "" or tostring(port),
      tostring(options.server_name), tostring(options.ssl_verify) }, ":") }
    options = setmetatable(own, { __index = options })
    own.pool_size, own.backlog = options.pool_size, options.backlog
  end
  if unix then ok, err = sock:connect(host, options) else ok, err = sock:connect(host, port, options) end
  if not ok then return ok, err end
  if options and options.ssl then
    local times
    times, err = sock:getreusedtimes()
    if not times then return nil, err end
    if times == 0 then
      ok, err = sock:sslhandshake(false, options.server_name, options.ssl_verify)
      if not ok then return nil, "failed to do ssl handshake: " .. tostring(err) end
    end
  end
  return ok, err
end

function Redis.set_keepalive(self, ...)
  local sock = self._sock
  if not sock then return nil, "not initialized" end
  if self._subscribed then return nil, "subscribed state" end
  return sock:setkeepalive(...)
end

function Redis.get_reused_times(self)
  local sock = self._sock
  if not sock then return nil, "not initialized" end
  return sock:getreusedtimes()
end

function Redis.close(self)
  local sock = self._sock
  if not sock then return nil, "not initialized" end
  self._subscribed = false
  return sock:close()
end

-- A reply: a value, `false` and the server's error, or nil and what is wrong with the connection.
local function read(self, sock, patient)
  local value, detail = item(sock)
  if value == nil then
    if detail == "timeout" and not patient then sock:close() end
    return nil, detail
  end
  if value ~= true then return value, detail end
  local list = {}
  for i = 1, detail do
    local element, why = read(self, sock)
    if element == nil then return nil, why end
    if element == false then element = { false, why } end
    list[i] = element
  end
  return list
end

local pushes = { message = true, pmessage = true }

-- An unsubscription that is the last one ends the subscribed state.
local function note_unsubscribed(self, reply)
  if type(reply) ~= "table" then return end
  local kind = reply[1]
  if kind == "unsubscribe" or kind == "punsubscribe" then
    local channels = rawget(self, "_channels")
    if not channels then return end
    local of = sub(kind, 1, 1) == "p" and "psubscribe" or "subscribe"
    if channels[of] > 0 then channels[of] = channels[of] - 1 end
    if channels.subscribe == 0 and channels.psubscribe == 0 then self._subscribed = false end
  end
end

-- The reply to a command; messages that come first are kept for `read_reply`.
local function reply(self, sock, command)
  if not self._subscribed then
    local value, err = read(self, sock, blocking[command])
    return value, err
  end
  while true do
    local value, err = read(self, sock, true)
    if not (type(value) == "table" and pushes[value[1]]) then return value, err end
    local kept = self._messages
    if not kept then
      kept = {}
      self._messages = kept
    end
    kept[#kept + 1] = value
  end
end

local function run(self, command, ...)
  local sock = self._sock
  if not sock then return nil, "not initialized" end
  local name = command
  if self._module then
    name = self._module .. "." .. command
    self._module = false
  end
  local pipeline = self._pipeline
  if pipeline then
    pipeline[#pipeline + 1] = encode(name, ...)
    return
  end
  local bytes, err = send(sock, name, ...)
  if not bytes then return nil, err end
  return reply(self, sock, command)
end

for _, name in pairs { "subscribe", "psubscribe" } do
  Redis[name] = function(self, ...)
    if not rawget(self, "_sock") then return nil, "not initialized" end
    self._subscribed = true
    local channels = rawget(self, "_channels") or { subscribe = 0, psubscribe = 0 }
    channels[name] = channels[name] + select("#", ...)
    self._channels = channels
    return run(self, name, ...)
  end
  Redis[name == "subscribe" and "unsubscribe" or "punsubscribe"] = function(self, ...)
    local value, err = run(self, name == "subscribe" and "unsubscribe" or "punsubscribe", ...)
    note_unsubscribed(self, value)
    return value, err
  end
end

function Redis.read_reply(self)
  local sock = rawget(self, "_sock")
  if not sock then return nil, "not initialized" end
  if not rawget(self, "_subscribed") then return nil, "not subscribed" end
  local kept = rawget(self, "_messages")
  if kept and kept[1] then return remove(kept, 1) end
  local value, err = read(self, sock, true)
  note_unsubscribed(self, value)
  return value, err
end

function Redis.hmset(self, key, ...)
  local first = ...
  if select("#", ...) ~= 1 or type(first) ~= "table" then return run(self, "hmset", key, ...) end
  local list, n = {}, 0
  for field, value in pairs(first) do
    list[n + 1], list[n + 2] = field, value
    n = n + 2
  end
  return run(self, "hmset", key, unpack(list, 1, n))
end

function Redis.init_pipeline(self, _)
  self._pipeline = {}
end

function Redis.cancel_pipeline(self)
  self._pipeline = false
end

function Redis.commit_pipeline(self)
  local pipeline = rawget(self, "_pipeline")
  if not pipeline then return nil, "no pipeline" end
  self._pipeline = false
  local sock = rawget(self, "_sock")
  if not sock then return nil, "not initialized" end
  local bytes, err = sock:send(concat(pipeline))
  if not bytes then return nil, err end
  local replies = {}
  for i = 1, #pipeline do
    local value, why = read(self, sock)
    if value == nil then
      if why == "timeout" then sock:close() end
      return nil, why
    end
    if value == false then value = { false, why } end
    replies[i] = value
  end
  return replies
end

function Redis.array_to_hash(_, list)
  local hash = {}
  for i = 1, #list, 2 do hash[list[i]] = list[i + 1] end
  return hash
end

function Redis.register_module_prefix(module)
  Redis[module] = function(self)
    self._module = module
    return self
  end
end

local function command(name)
  local function method(self, ...) return run(self, name, ...) end
  Redis[name] = method
  return method
end

-- Every command is there without it.
function Redis.add_commands(...)
  for i = 1, select("#", ...) do command((select(i, ...))) end
end

setmetatable(Redis, { __index = function(_, name)
  if type(name) == "string" and byte(name) ~= 95 then return command(name) end
end })

return Redis
