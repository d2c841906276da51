-- `resty.websocket.protocol`: frames of RFC 6455, read from and written to a cosocket.
local bit = require "bit"
local band, bxor, rshift, bor = bit.band, bit.bxor, bit.rshift, bit.bor
local byte, char, sub, rep = string.byte, string.char, string.sub, string.rep
local concat = table.concat
local type, tostring, random = type, tostring, math.random

local Protocol = { _VERSION = "0.12" }

local types = { [0] = "continuation", [1] = "text", [2] = "binary", [8] = "close", [9] = "ping", [10] = "pong" }
-- Bytes that are unmasked at a time: `string.char` takes no more.
local PIECE = 4096

local function mask_bytes(text, mask)
  local m = { byte(mask, 1, 4) }
  local parts = {}
  for from = 1, #text, PIECE do
    local bytes = { byte(text, from, from + PIECE - 1) }
    for i = 1, #bytes do bytes[i] = bxor(bytes[i], m[(i - 1) % 4 + 1]) end
    parts[#parts + 1] = char(unpack(bytes))
  end
  return concat(parts)
end

local function length_of(sock, first)
  if first < 126 then return first end
  if first == 126 then
    local data, err = sock:receive(2)
    if not data then return nil, "failed to receive the 2 byte payload length: " .. tostring(err) end
    local a, b = byte(data, 1, 2)
    return a * 256 + b
  end
  local data, err = sock:receive(8)
  if not data then return nil, "failed to receive the 8 byte payload length: " .. tostring(err) end
  local a, b, c, d, e, f, g, h = byte(data, 1, 8)
  if a ~= 0 or b ~= 0 or c ~= 0 or d ~= 0 or e >= 128 then
    return nil, "payload len too large"
  end
  return ((e * 256 + f) * 256 + g) * 256 + h
end

local function close_frame(payload)
  if #payload == 0 then return "", "close", nil end
  if #payload < 2 then return nil, nil, "close frame with a body must carry a 2-byte status code" end
  local high, low = byte(payload, 1, 2)
  return sub(payload, 3), "close", high * 256 + low
end

-- data, type, error or status; "again" while a message has more frames.
function Protocol.recv_frame(sock, max_payload_len, force_masking)
  local head, err = sock:receive(2)
  if not head then return nil, nil, "failed to receive the first 2 bytes: " .. tostring(err) end
  local first, second = byte(head, 1, 2)
  if band(first, 0x70) ~= 0 then return nil, nil, "bad RSV1, RSV2, or RSV3 bits" end
  local final, opcode = band(first, 0x80) ~= 0, band(first, 0x0f)
  if not types[opcode] then return nil, nil, opcode < 8 and "reserved non-control frames" or "reserved control frames" end
  local masked = band(second, 0x80) ~= 0
  if force_masking and not masked then return nil, nil, "frame unmasked" end
  local length = band(second, 0x7f)
  if opcode >= 8 and (length > 125 or not final) then
    return nil, nil, length > 125 and "too long payload for control frame" or "fragmented control frame"
  end
  length, err = length_of(sock, length)
  if not length then return nil, nil, err end
  if length > max_payload_len then return nil, nil, "exceeding max payload len" end
  local mask
  if masked then
    mask, err = sock:receive(4)
    if not mask then return nil, nil, "failed to receive the masking key: " .. tostring(err) end
  end
  local payload = ""
  if length > 0 then
    payload, err = sock:receive(length)
    if not payload then return nil, nil, "failed to read payload: " .. tostring(err) end
    if mask then payload = mask_bytes(payload, mask) end
  end
  if opcode == 8 then return close_frame(payload) end
  return payload, types[opcode], not final and "again" or nil
end

local function build(final, opcode, length, payload, masking)
  local first = bor(final and 0x80 or 0, opcode)
  local head
  local flag = masking and 0x80 or 0
  if length < 126 then
    head = char(first, bor(flag, length))
  elseif length < 65536 then
    head = char(first, bor(flag, 126), rshift(length, 8), band(length, 255))
  else
    head = char(first, bor(flag, 127)) .. rep("\0", 4)
      .. char(band(rshift(length, 24), 255), band(rshift(length, 16), 255), band(rshift(length, 8), 255), band(length, 255))
  end
  if not masking then return head .. payload end
  local mask = char(random(0, 255), random(0, 255), random(0, 255), random(0, 255))
  return head .. mask .. mask_bytes(payload, mask)
end

function Protocol.build_frame(final, opcode, payload_len, payload, masking)
  return build(final, opcode, payload_len, payload, masking)
end

function Protocol.send_frame(sock, final, opcode, payload, max_payload_len, masking)
  payload = payload or ""
  if type(payload) ~= "string" then payload = tostring(payload) end
  if #payload > max_payload_len then return nil, "payload too big" end
  if opcode >= 8 then
    if #payload > 125 then return nil, "too much payload for control frame" end
    if not final then return nil, "fragmented control frame" end
  end
  local bytes, err = sock:send(build(final, opcode, #payload, payload, masking))
  if not bytes then return nil, "failed to send frame: " .. tostring(err) end
  return bytes
end

function Protocol.status(code)
  return char(band(rshift(code, 8), 255), band(code, 255))
end

-- What client and server have in common: `self` has sock, max_payload_len, send_masked, ….
function Protocol.methods(class)
  function class.set_timeout(self, milliseconds)
    if not self.sock then return nil, "not initialized yet" end
    return self.sock:settimeout(milliseconds)
  end
  function class.recv_frame(self)
    if self.fatal then return nil, nil, "fatal error already happened" end
    if not self.sock then return nil, nil, "not initialized yet" end
    local data, kind, err = Protocol.recv_frame(self.sock, self.max_payload_len, self.force_masking)
    if not data and not (err and err:find(": timeout", 1, true)) then self.fatal = true end
    return data, kind, err
  end
  function class.send_frame(self, final, opcode, payload)
    if self.fatal then return nil, "fatal error already happened" end
    if self.closed then return nil, "already closed" end
    if not self.sock then return nil, "not initialized yet" end
    local bytes, err = Protocol.send_frame(self.sock, final, opcode, payload, self.max_send_len, self.send_masked)
    if not bytes then self.fatal = true end
    return bytes, err
  end
  function class.send_text(self, text) return self:send_frame(true, 1, text) end
  function class.send_binary(self, bytes) return self:send_frame(true, 2, bytes) end
  function class.send_ping(self, text) return self:send_frame(true, 9, text) end
  function class.send_pong(self, text) return self:send_frame(true, 10, text) end
  function class.send_close(self, code, text)
    local payload = ""
    if code then
      if type(code) ~= "number" or code > 0x7fff then return nil, "bad status code" end
      payload = Protocol.status(code) .. (text or "")
    end
    local bytes, err = self:send_frame(true, 8, payload)
    if not bytes then self.fatal = true end
    return bytes, err
  end
end

return Protocol
