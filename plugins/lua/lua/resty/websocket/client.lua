-- `resty.websocket.client`: a WebSocket connection to a server, over a cosocket.
local protocol = require "resty.websocket.protocol"
local tcp = ngx.socket.tcp
local encode_base64, sha1 = ngx.encode_base64, ngx.sha1_bin
local match, lower = string.match, string.lower
local char, random, concat = string.char, math.random, table.concat
local type, tostring, ipairs, setmetatable = type, tostring, ipairs, setmetatable

local Client = { _VERSION = "0.12" }
local meta = { __index = Client }
protocol.methods(Client)

local GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
-- Lines of an answer's head.
local MOST_LINES = 100

function Client.new(_, options)
  local sock, err = tcp()
  if not sock then return nil, err end
  options = options or {}
  if options.timeout then sock:settimeout(options.timeout) end
  local most = options.max_payload_len or 65535
  return setmetatable({
    sock = sock, max_payload_len = options.max_recv_len or most, max_send_len = options.max_send_len or most,
    send_masked = not options.send_unmasked,
  }, meta)
end

local function request(options, host, port, path, key)
  local lines = {
    "GET " .. path .. " HTTP/1.1",
    "Host: " .. (options.host or (host .. ":" .. port)),
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " .. key,
  }
  local protocols = options.protocols
  if protocols then
    lines[#lines + 1] = "Sec-WebSocket-Protocol: " .. (type(protocols) == "table" and concat(protocols, ",") or protocols)
  end
  if options.origin then lines[#lines + 1] = "Origin: " .. options.origin end
  for _, header in ipairs(options.headers or {}) do lines[#lines + 1] = header end
  return concat(lines, "\r\n") .. "\r\n\r\n"
end

-- The answer's head must accept what was asked.
local function read_answer(sock, key)
  local status, err = sock:receive("*l")
  if not status then return nil, "failed to receive response header: " .. tostring(err) end
  local head, accepted = { status }, nil
  for _ = 1, MOST_LINES do
    local line
    line, err = sock:receive("*l")
    if not line then return nil, "failed to receive response header: " .. tostring(err) end
    head[#head + 1] = line
    if line == "" then break end
    local name, value = match(line, "^([^:]+):%s*(.-)%s*$")
    if name and lower(name) == "sec-websocket-accept" then accepted = value end
  end
  local text = concat(head, "\r\n") .. "\r\n"
  if not match(status, "^HTTP/1%.1 101") then return nil, "bad HTTP response status line: " .. status, text end
  if accepted ~= encode_base64(sha1(key .. GUID)) then return nil, "bad Sec-WebSocket-Accept", text end
  return 1, nil, text
end

function Client.connect(self, uri, options)
  local sock = self.sock
  if not sock then return nil, "not initialized" end
  options = options or {}
  local scheme, host, port, path = match(uri, "^(wss?)://([^:/]+):?(%d*)(.*)$")
  if not scheme then return nil, "bad websocket uri" end
  port = tonumber(port) or (scheme == "wss" and 443 or 80)
  if path == "" then path = "/" end
  local secure = scheme == "wss"
  local pool = options.pool or (secure and concat({ "wss", host, port, tostring(options.server_name), tostring(options.ssl_verify) }, ":")) or nil
  local ok, err = sock:connect(host, port, { pool = pool, pool_size = options.pool_size, backlog = options.backlog })
  if not ok then return nil, "failed to connect: " .. tostring(err) end
  self.closed, self.fatal = nil, nil
  if (sock:getreusedtimes() or 0) > 0 then return 1, nil, "connection reused" end
  if secure then
    if options.client_cert then
      ok, err = sock:setclientcert(options.client_cert, options.client_priv_key)
      if not ok then return nil, "ssl client cert: " .. tostring(err) end
    end
    ok, err = sock:sslhandshake(false, options.server_name or host, options.ssl_verify)
    if not ok then return nil, "ssl handshake failed: " .. tostring(err) end
  end
  local bytes = {}
  for i = 1, 16 do bytes[i] = char(random(0, 255)) end
  local key = options.key or encode_base64(concat(bytes))
  ok, err = sock:send(request(options, host, port, path, key))
  if not ok then return nil, "failed to send the handshake request: " .. tostring(err) end
  return read_answer(sock, key)
end

function Client.set_keepalive(self, ...)
  if not self.sock then return nil, "not initialized" end
  return self.sock:setkeepalive(...)
end

function Client.close(self)
  local sock = self.sock
  if not sock then return nil, "not initialized" end
  if not self.closed and not self.fatal then
    local bytes, err = self:send_close()
    if not bytes then return nil, "failed to send close frame: " .. tostring(err) end
  end
  self.closed = true
  return sock:close()
end

return Client
