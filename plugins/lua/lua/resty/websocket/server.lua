-- `resty.websocket.server`: the other end of a client's WebSocket, over the raw request socket.
local protocol = require "resty.websocket.protocol"
local encode_base64, sha1 = ngx.encode_base64, ngx.sha1_bin
local lower, find, match = string.lower, string.find, string.match
local type, tostring, setmetatable = type, tostring, setmetatable

local Server = { _VERSION = "0.12" }
local meta = { __index = Server }
protocol.methods(Server)

local GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

local function first(value)
  if type(value) == "table" then return value[1] end
  return value
end

-- What the request's head must say; its key, or nil and why.
local function check(headers)
  local upgrade, connection = first(headers.upgrade), first(headers.connection)
  if not upgrade then return nil, "no upgrade request header" end
  if lower(upgrade) ~= "websocket" then return nil, "bad \"upgrade\" request header: " .. tostring(upgrade) end
  if not connection then return nil, "no connection request header" end
  if not find(lower(connection), "upgrade", 1, true) then return nil, "bad \"connection\" request header" end
  local key, version = first(headers["sec-websocket-key"]), first(headers["sec-websocket-version"])
  if not key then return nil, "no sec-websocket-key request header" end
  if version ~= "13" then return nil, "bad \"sec-websocket-version\" request header" end
  return key
end

function Server.new(_, options)
  if not ngx.req.socket then return nil, "ngx.req.socket is not offered" end
  if ngx.headers_sent then return nil, "response header already sent" end
  ngx.req.read_body()
  if ngx.req.http_version() ~= 1.1 then return nil, "bad http version" end
  local headers = ngx.req.get_headers()
  local key, err = check(headers)
  if not key then return nil, err end
  local wanted = first(headers["sec-websocket-protocol"])
  if wanted then ngx.header["Sec-WebSocket-Protocol"] = match(wanted, "^%s*([^,%s]+)") end
  ngx.header["Sec-WebSocket-Accept"] = encode_base64(sha1(key .. GUID))
  ngx.header["Upgrade"] = "websocket"
  ngx.header["Connection"] = "upgrade"
  ngx.header["Content-Type"] = nil
  ngx.status = 101
  local ok
  ok, err = ngx.send_headers()
  if not ok then return nil, "failed to send response header: " .. tostring(err or "unknown") end
  ok, err = ngx.flush(true)
  if not ok then return nil, "failed to flush response header: " .. tostring(err) end
  local sock
  sock, err = ngx.req.socket(true)
  if not sock then return nil, err end
  options = options or {}
  if options.timeout then sock:settimeout(options.timeout) end
  local most = options.max_payload_len or 65535
  return setmetatable({
    sock = sock, max_payload_len = options.max_recv_len or most, max_send_len = options.max_send_len or most,
    send_masked = options.send_masked, force_masking = true,
  }, meta)
end

return Server
