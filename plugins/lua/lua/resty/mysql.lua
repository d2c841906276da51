-- `resty.mysql`: a MySQL or MariaDB connection over a cosocket: the text protocol.
local tcp, null = ngx.socket.tcp, ngx.null
local sha1, md5 = ngx.sha1_bin, ngx.md5
local bit = require "bit"
local band, bor, bxor, rshift = bit.band, bit.bor, bit.bxor, bit.rshift
local byte, char, sub, find, rep = string.byte, string.char, string.sub, string.find, string.rep
local concat = table.concat
local type, tonumber, tostring, setmetatable = type, tonumber, tostring, setmetatable

local Mysql = { _VERSION = "0.27" }
local meta = { __index = Mysql }

local CONNECTED, COMMAND_SENT = 1, 2
local COM_QUIT, COM_QUERY = "\1", "\3"
local MORE_RESULTS = 8
-- The longest packet that the protocol knows; longer payloads go on in the next one.
local MOST = 0xffffff
local PIECE = 1024 * 1024
local DEFAULT_MAX_PACKET = 1024 * 1024

local CLIENT_LONG_PASSWORD, CLIENT_LONG_FLAG, CLIENT_CONNECT_WITH_DB = 0x1, 0x4, 0x8
local CLIENT_PROTOCOL_41, CLIENT_SSL, CLIENT_TRANSACTIONS = 0x200, 0x800, 0x2000
local CLIENT_SECURE_CONNECTION, CLIENT_MULTI_STATEMENTS, CLIENT_MULTI_RESULTS = 0x8000, 0x10000, 0x20000
local CLIENT_PLUGIN_AUTH = 0x80000

local charsets = {
  _default = 0, big5 = 1, latin2 = 9, dec8 = 3, cp850 = 4, hp8 = 6, koi8r = 7, latin1 = 8, swe7 = 10, ascii = 11,
  ujis = 12, sjis = 13, hebrew = 16, tis620 = 18, euckr = 19, koi8u = 22, gb2312 = 24, greek = 25, cp1250 = 26,
  gbk = 28, latin5 = 30, armscii8 = 32, utf8 = 33, ucs2 = 35, cp866 = 36, keybcs2 = 37, macce = 38, macroman = 39,
  cp852 = 40, latin7 = 41, utf8mb4 = 45, cp1251 = 51, utf16 = 54, utf16le = 56, cp1256 = 57, cp1257 = 59,
  utf32 = 60, binary = 63, geostd8 = 92, cp932 = 95, eucjpms = 97, gb18030 = 248,
}

-- Which column types are numbers in Lua: 64-bit integers stay strings, as doubles cannot hold them.
local numeric = { [0x00] = true, [0x01] = true, [0x02] = true, [0x03] = true, [0x04] = true, [0x05] = true,
  [0x09] = true, [0x0d] = true, [0xf6] = true }

local function get2(s, i)
  local a, b = byte(s, i, i + 1)
  return a + b * 256, i + 2
end

local function get3(s, i)
  local a, b, c = byte(s, i, i + 2)
  return a + b * 256 + c * 65536, i + 3
end

local function get4(s, i)
  local a, b, c, d = byte(s, i, i + 3)
  return a + b * 256 + c * 65536 + d * 16777216, i + 4
end

local function get8(s, i)
  local low, next = get4(s, i)
  local high = get4(s, next)
  return low + high * 4294967296, i + 8
end

local function put2(n) return char(band(n, 255), band(rshift(n, 8), 255)) end
local function put3(n) return put2(n) .. char(band(rshift(n, 16), 255)) end
local function put4(n) return put3(n) .. char(band(rshift(n, 24), 255)) end

-- A number of variable length; nil is SQL's NULL.
local function length_coded(s, i)
  local first = byte(s, i)
  if not first then return nil, i end
  if first < 251 then return first, i + 1 end
  if first == 251 then return null, i + 1 end
  if first == 252 then return get2(s, i + 1) end
  if first == 253 then return get3(s, i + 1) end
  if first == 254 then return get8(s, i + 1) end
  return nil, i + 1
end

local function length_string(s, i)
  local n
  n, i = length_coded(s, i)
  if n == nil or n == null then return null, i end
  return sub(s, i, i + n - 1), i + n
end

local function zero_string(s, i)
  local last = find(s, "\0", i, true)
  if not last then return sub(s, i), #s + 1 end
  return sub(s, i, last - 1), last + 1
end

-- A large packet comes in pieces: a socket gives no more at a time than its buffer may hold.
local function receive_bytes(sock, length)
  if length == 0 then return "" end
  if length <= PIECE then return sock:receive(length) end
  local parts = {}
  for at = 1, length, PIECE do
    local piece, err = sock:receive(at + PIECE - 1 <= length and PIECE or length - at + 1)
    if not piece then return nil, err end
    parts[#parts + 1] = piece
  end
  return concat(parts)
end

local function receive_packet(self)
  local sock = self.sock
  local parts
  while true do
    local head, err = sock:receive(4)
    if not head then return nil, nil, "failed to receive packet header: " .. err end
    local length = get3(head, 1)
    if length > self._max_packet_size then
      return nil, nil, "packet size too big: " .. length
    end
    self.packet_no = byte(head, 4)
    local data
    data, err = receive_bytes(sock, length)
    if not data then return nil, nil, "failed to read packet content: " .. err end
    if parts then parts[#parts + 1] = data end
    if length < MOST then
      if parts then data = concat(parts) end
      if #data == 0 then return nil, nil, "empty packet" end
      local first = byte(data, 1)
      local kind = "DATA"
      if first == 0x00 then
        kind = "OK"
      elseif first == 0xff then
        kind = "ERR"
      elseif first == 0xfe and #data < 9 then
        kind = "EOF"
      end
      return data, kind
    end
    parts = parts or { data }
  end
end

local function send_packet(self, payload)
  local parts, at = {}, 1
  repeat
    local piece = sub(payload, at, at + MOST - 1)
    at = at + MOST
    self.packet_no = band(self.packet_no + 1, 255)
    parts[#parts + 1] = put3(#piece) .. char(self.packet_no) .. piece
  until #piece < MOST
  return self.sock:send(concat(parts))
end

-- Number, text and SQL state of an error.
local function parse_error(packet)
  local number, at = get2(packet, 2)
  local state
  if byte(packet, at) == 35 then -- #
    state = sub(packet, at + 1, at + 5)
    at = at + 6
  end
  return number, sub(packet, at), state
end

local function parse_ok(packet)
  local result, at = {}, 2
  result.affected_rows, at = length_coded(packet, at)
  result.insert_id, at = length_coded(packet, at)
  result.server_status, at = get2(packet, at)
  result.warning_count, at = get2(packet, at)
  if at <= #packet then result.message = sub(packet, at) end
  return result
end

local function xor(a, b)
  local parts = {}
  for i = 1, #a do parts[i] = char(bxor(byte(a, i), byte(b, i))) end
  return concat(parts)
end

local function native_token(password, scramble)
  if password == "" then return "" end
  local first = sha1(password)
  return xor(sha1(scramble .. sha1(first)), first)
end

local function sha256(text)
  local digest = require("resty.sha256"):new()
  digest:update(text)
  return digest:final()
end

local function sha2_token(password, scramble)
  if password == "" then return "" end
  local first = sha256(password)
  return xor(first, sha256(sha256(first) .. scramble))
end

local function token(plugin, password, scramble)
  if plugin == "caching_sha2_password" then return sha2_token(password, scramble) end
  if plugin == "mysql_native_password" or plugin == "" then return native_token(password, scramble) end
  if plugin == "mysql_clear_password" then return nil, "mysql_clear_password is not offered" end
  return nil, "authentication plugin '" .. plugin .. "' is not offered"
end

function Mysql.new(_)
  local sock, err = tcp()
  if not sock then return nil, err end
  return setmetatable({ sock = sock }, meta)
end

function Mysql.set_timeout(self, milliseconds)
  if not self.sock then return nil, "not initialized" end
  return self.sock:settimeout(milliseconds)
end

function Mysql.set_timeouts(self, connect, send, read)
  if not self.sock then return nil, "not initialized" end
  return self.sock:settimeouts(connect, send, read)
end

-- What the server says first: version, scramble, what it can do.
local function parse_greeting(self, packet)
  self.protocol_ver = byte(packet, 1)
  local at, part1, part2, low, high
  self._server_ver, at = zero_string(packet, 2)
  _, at = get4(packet, at)
  part1, at = sub(packet, at, at + 7), at + 9
  low, at = get2(packet, at)
  self._server_lang, at = byte(packet, at), at + 1
  self._server_status, at = get2(packet, at)
  high, at = get2(packet, at)
  self._server_capabilities = low + high * 65536
  local length = byte(packet, at) or 0
  at = at + 11
  length = length > 21 and length - 8 - 1 or 12
  part2, at = sub(packet, at, at + length - 1), at + length + 1
  self._plugin = (zero_string(packet, at))
  return part1 .. part2
end

local function start_tls(self, options, flags, charset)
  if band(self._server_capabilities, CLIENT_SSL) == 0 then return nil, "ssl disabled on server" end
  local ok, err = send_packet(self, put4(bor(flags, CLIENT_SSL)) .. put4(self._max_packet_size) .. char(charset) .. rep("\0", 23))
  if not ok then return nil, "failed to send ssl request packet: " .. err end
  ok, err = self.sock:sslhandshake(false, options.host, options.ssl_verify)
  if not ok then return nil, "failed to do ssl handshake: " .. tostring(err) end
  self._secure = true
  return true
end

-- Behind the first token: a change of the plugin, more of caching_sha2_password, OK or an error.
local function finish_auth(self, password, scramble)
  for _ = 1, 8 do
    local packet, kind, err = receive_packet(self)
    if not packet then return nil, "failed to receive the result packet: " .. err end
    if kind == "ERR" then
      local number, text, state = parse_error(packet)
      return nil, text, number, state
    elseif kind == "OK" then
      return true
    elseif byte(packet, 1) == 0xfe then
      if #packet == 1 then return nil, "old pre-4.1 authentication protocol not supported" end
      local plugin, at = zero_string(packet, 2)
      scramble = sub(packet, at, at + 19)
      local answer, why = token(plugin, password, scramble)
      if not answer then return nil, why end
      local ok
      ok, err = send_packet(self, answer)
      if not ok then return nil, "failed to send packet: " .. err end
    elseif byte(packet, 1) == 0x01 and byte(packet, 2) == 4 then
      -- The server does not remember the password: it wants it itself, where nobody can listen.
      if not self._secure then
        return nil, "caching_sha2_password needs ssl = true or a unix socket for a user's first login"
      end
      local ok
      ok, err = send_packet(self, password .. "\0")
      if not ok then return nil, "failed to send packet: " .. err end
    elseif byte(packet, 1) ~= 0x01 or byte(packet, 2) ~= 3 then
      return nil, "bad packet type: " .. kind
    end
  end
  return nil, "the authentication does not come to an end"
end

local function authenticate(self, options)
  local packet, kind, err = receive_packet(self)
  if not packet then return nil, err end
  if kind == "ERR" then
    local number, text, state = parse_error(packet)
    return nil, text, number, state
  end
  local scramble = parse_greeting(self, packet)
  local flags = bor(CLIENT_LONG_PASSWORD, CLIENT_LONG_FLAG, CLIENT_PROTOCOL_41, CLIENT_TRANSACTIONS,
    CLIENT_SECURE_CONNECTION, CLIENT_MULTI_STATEMENTS, CLIENT_MULTI_RESULTS)
  local database, user, password = options.database or "", options.user or "", options.password or ""
  if database ~= "" then flags = bor(flags, CLIENT_CONNECT_WITH_DB) end
  local plugin = self._plugin
  if band(self._server_capabilities, CLIENT_PLUGIN_AUTH) ~= 0 then
    flags = bor(flags, CLIENT_PLUGIN_AUTH)
  else
    plugin = "mysql_native_password"
  end
  local charset = charsets[options.charset or "_default"]
  if not charset then return nil, "charset '" .. options.charset .. "' is not supported" end
  if options.ssl then
    local ok, why = start_tls(self, options, flags, charset)
    if not ok then return nil, why end
    flags = bor(flags, CLIENT_SSL)
  end
  local answer = token(plugin, password, scramble)
  if not answer then plugin, answer = "mysql_native_password", native_token(password, scramble) end
  local ok
  ok, err = send_packet(self, put4(flags) .. put4(self._max_packet_size) .. char(charset) .. rep("\0", 23)
    .. user .. "\0" .. char(#answer) .. answer
    .. (database ~= "" and database .. "\0" or "")
    .. (band(flags, CLIENT_PLUGIN_AUTH) ~= 0 and plugin .. "\0" or ""))
  if not ok then return nil, "failed to send client authentication packet: " .. err end
  return finish_auth(self, password, scramble)
end

function Mysql.connect(self, options)
  local sock = self.sock
  if not sock then return nil, "not initialized" end
  self._max_packet_size = options.max_packet_size or DEFAULT_MAX_PACKET
  self.compact = options.compact_arrays
  self.packet_no = -1
  self.state = nil
  local pool = options.pool
  local host, port = options.host, options.port or 3306
  if not pool then
    local where = options.path or (tostring(host) .. ":" .. port)
    -- Who knows the pool's name must not get in with another password.
    pool = concat({ options.user or "", options.database or "", md5(options.password or ""), tostring(options.ssl), tostring(options.ssl_verify), where }, ":")
  end
  local connection = { pool = pool, pool_size = options.pool_size, backlog = options.backlog }
  local ok, err
  if host then
    ok, err = sock:connect(host, port, connection)
  elseif options.path then
    ok, err = sock:connect("unix:" .. options.path, connection)
    self._secure = true
  else
    return nil, 'neither "host" nor "path" options are specified'
  end
  if not ok then return nil, "failed to connect: " .. tostring(err) end
  local reused = sock:getreusedtimes()
  if reused and reused > 0 then
    self.state = CONNECTED
    return 1
  end
  local fine, why, number, state = authenticate(self, options)
  if not fine then
    sock:close()
    return nil, why, number, state
  end
  self.state = CONNECTED
  return 1
end

function Mysql.set_keepalive(self, ...)
  local sock = self.sock
  if not sock then return nil, "not initialized" end
  if self.state ~= CONNECTED then
    return nil, "cannot be reused in the current connection state: " .. tostring(self.state or "nil")
  end
  self.state = nil
  return sock:setkeepalive(...)
end

function Mysql.get_reused_times(self)
  if not self.sock then return nil, "not initialized" end
  return self.sock:getreusedtimes()
end

function Mysql.close(self)
  local sock = self.sock
  if not sock then return nil, "not initialized" end
  self.state = nil
  self.packet_no = -1
  local bytes, err = send_packet(self, COM_QUIT)
  if not bytes then return nil, err end
  return sock:close()
end

function Mysql.server_ver(self)
  return self._server_ver
end

function Mysql.set_compact_arrays(self, value)
  self.compact = value
end

function Mysql.send_query(self, query)
  if self.state ~= CONNECTED then
    return nil, "cannot send query in the current context: " .. tostring(self.state or "nil")
  end
  if not self.sock then return nil, "not initialized" end
  self.packet_no = -1
  if type(query) == "table" then query = concat(query) end
  local bytes, err = send_packet(self, COM_QUERY .. query)
  if not bytes then return nil, err end
  self.state = COMMAND_SENT
  return bytes
end

local function read_columns(self, count)
  local columns = {}
  for i = 1, count do
    local packet, kind, err = receive_packet(self)
    if not packet then return nil, err end
    if kind == "ERR" then
      local number, text, state = parse_error(packet)
      return nil, text, number, state
    end
    local at, name = 1, nil
    -- catalog, database, table, original table, name, original name
    for field = 1, 6 do
      local value
      value, at = length_string(packet, at)
      if field == 5 then name = value end
    end
    columns[i] = { name = name, type = byte(packet, at + 7) }
  end
  local packet, kind, err = receive_packet(self)
  if not packet then return nil, err end
  if kind ~= "EOF" then return nil, "unexpected packet type " .. kind .. " while eof packet is expected" end
  return columns
end

local function read_row(packet, columns, compact)
  local row, at = {}, 1
  for i = 1, #columns do
    local column, value = columns[i], nil
    value, at = length_string(packet, at)
    if value ~= null and numeric[column.type] then value = tonumber(value) end
    row[compact and i or column.name] = value
  end
  return row
end

local function more(self, status)
  if band(status, MORE_RESULTS) ~= 0 then return "again" end
  self.state = CONNECTED
end

function Mysql.read_result(self, _)
  if self.state ~= COMMAND_SENT then
    return nil, "cannot read result in the current context: " .. tostring(self.state or "nil")
  end
  if not self.sock then return nil, "not initialized" end
  local packet, kind, err = receive_packet(self)
  if not packet then return nil, err end
  if kind == "ERR" then
    self.state = CONNECTED
    local number, text, state = parse_error(packet)
    return nil, text, number, state
  elseif kind == "OK" then
    local result = parse_ok(packet)
    return result, more(self, result.server_status)
  elseif kind ~= "DATA" then
    return nil, "packet type " .. kind .. " not supported"
  elseif byte(packet, 1) == 251 then
    return nil, "LOAD DATA LOCAL is not offered"
  end
  local columns, why, number, state = read_columns(self, (length_coded(packet, 1)))
  if not columns then return nil, why, number, state end
  local rows, n = {}, 0
  while true do
    packet, kind, err = receive_packet(self)
    if not packet then return nil, err end
    if kind == "EOF" then return rows, more(self, (get2(packet, 4))) end
    if kind == "ERR" then
      self.state = CONNECTED
      number, why, state = parse_error(packet)
      return nil, why, number, state
    end
    n = n + 1
    rows[n] = read_row(packet, columns, self.compact)
  end
end

function Mysql.query(self, query, rows)
  local bytes, err = self:send_query(query)
  if not bytes then return nil, "failed to send query: " .. tostring(err) end
  return self:read_result(rows)
end

return Mysql
