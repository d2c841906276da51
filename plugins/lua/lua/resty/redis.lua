-- `resty.redis`: a Redis connection over a cosocket, RESP2. Any method is a command.
local tcp, null = ngx.socket.tcp, ngx.null
local concat, remove, unpack = table.concat, table.remove, unpack
local byte, sub = string.byte, string.sub
local type, tostring, tonumber, pairs, select = type, tostring, tonumber, pairs, select
local rawget, setmetatable = rawget, setmetatable

local Redis = { _VERSION = "0.33" }
local meta = { __index = Redis }

-- A time-out while these wait says nothing of the connection.
local blocking = { blpop = true, brpop = true }

function Redis.new(_)
  local sock, err = tcp()
  if not sock then return nil, err end
  return setmetatable({ _sock = sock, _subscribed = false, _channels = { subscribe = 0, psubscribe = 0 } }, meta)
end

function Redis.set_timeout(self, milliseconds)
  local sock = rawget(self, "_sock")
  if not sock then error("not initialized", 2) end
  sock:settimeout(milliseconds)
end

function Redis.set_timeouts(self, connect, send, read)
  local sock = rawget(self, "_sock")
  if not sock then error("not initialized", 2) end
  sock:settimeouts(connect, send, read)
end

function Redis.connect(self, host, port, options)
  local sock = rawget(self, "_sock")
  if not sock then return nil, "not initialized" end
  local unix = type(host) == "string" and sub(host, 1, 5) == "unix:"
  if unix then options = port end
  if options ~= nil and type(options) ~= "table" then
    return nil, "bad argument #3 opts: must be a table"
  end
  self._subscribed = false
  self._channels = { subscribe = 0, psubscribe = 0 }
  self._messages = nil
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
  local sock = rawget(self, "_sock")
  if not sock then return nil, "not initialized" end
  if rawget(self, "_subscribed") then return nil, "subscribed state" end
  return sock:setkeepalive(...)
end

function Redis.get_reused_times(self)
  local sock = rawget(self, "_sock")
  if not sock then return nil, "not initialized" end
  return sock:getreusedtimes()
end

function Redis.close(self)
  local sock = rawget(self, "_sock")
  if not sock then return nil, "not initialized" end
  self._subscribed = false
  return sock:close()
end

-- A reply: a value, `false` and the server's error, or nil and what is wrong with the connection.
local function read(self, sock, patient)
  local line, err = sock:receive()
  if not line then
    if err == "timeout" and not patient then sock:close() end
    return nil, err
  end
  local prefix = byte(line)
  if prefix == 36 then -- $
    local size = tonumber(sub(line, 2))
    if size < 0 then return null end
    local data
    data, err = sock:receive(size)
    if data then
      local rest
      rest, err = sock:receive(2)
      if rest then return data end
    end
    if err == "timeout" then sock:close() end
    return nil, err
  elseif prefix == 43 then -- +
    return sub(line, 2)
  elseif prefix == 58 then -- :
    return tonumber(sub(line, 2))
  elseif prefix == 45 then -- -
    return false, sub(line, 2)
  elseif prefix == 42 then -- *
    local count = tonumber(sub(line, 2))
    if count < 0 then return null end
    local list = {}
    for i = 1, count do
      local value, why = read(self, sock)
      if value == nil then return nil, why end
      if value == false then value = { false, why } end
      list[i] = value
    end
    return list
  end
  return nil, "unknown prefix: \"" .. tostring(prefix and sub(line, 1, 1)) .. "\""
end

local function request(command, count, ...)
  local parts = { "*" .. count + 1 .. "\r\n$" .. #command .. "\r\n" .. command .. "\r\n" }
  for i = 1, count do
    local argument = select(i, ...)
    if type(argument) ~= "string" then argument = tostring(argument) end
    parts[i + 1] = "$" .. #argument .. "\r\n" .. argument .. "\r\n"
  end
  return concat(parts)
end

local pushes = { message = true, pmessage = true }

-- An unsubscription that is the last one ends the subscribed state.
local function note_unsubscribed(self, reply)
  if type(reply) ~= "table" then return end
  local kind = reply[1]
  if kind == "unsubscribe" or kind == "punsubscribe" then
    local channels = self._channels
    local of = sub(kind, 1, 1) == "p" and "psubscribe" or "subscribe"
    if channels[of] > 0 then channels[of] = channels[of] - 1 end
    if channels.subscribe == 0 and channels.psubscribe == 0 then self._subscribed = false end
  end
end

-- The reply to a command; messages that come first are kept for `read_reply`.
local function reply(self, sock, command)
  local patient = rawget(self, "_subscribed") or blocking[command]
  while true do
    local value, err = read(self, sock, patient)
    if not (rawget(self, "_subscribed") and type(value) == "table" and pushes[value[1]]) then
      return value, err
    end
    local kept = rawget(self, "_messages")
    if not kept then
      kept = {}
      self._messages = kept
    end
    kept[#kept + 1] = value
  end
end

local function run(self, command, ...)
  local sock = rawget(self, "_sock")
  if not sock then return nil, "not initialized" end
  local module = rawget(self, "_module")
  local name = command
  if module then
    self._module = nil
    name = module .. "." .. command
  end
  local text = request(name, select("#", ...), ...)
  local pipeline = rawget(self, "_pipeline")
  if pipeline then
    pipeline[#pipeline + 1] = text
    return
  end
  local bytes, err = sock:send(text)
  if not bytes then return nil, err end
  return reply(self, sock, command)
end

for _, name in pairs { "subscribe", "psubscribe" } do
  Redis[name] = function(self, ...)
    if not rawget(self, "_sock") then return nil, "not initialized" end
    self._subscribed = true
    self._channels[name] = self._channels[name] + select("#", ...)
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
  self._pipeline = nil
end

function Redis.commit_pipeline(self)
  local pipeline = rawget(self, "_pipeline")
  if not pipeline then return nil, "no pipeline" end
  self._pipeline = nil
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
