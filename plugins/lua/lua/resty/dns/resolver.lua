-- `resty.dns.resolver`: DNS queries over a cosocket: UDP, and TCP where an answer is truncated.
local socket = ngx.socket
local bit = require "bit"
local band, rshift = bit.band, bit.rshift
local byte, char, sub, find, gsub, format, lower = string.byte, string.char, string.sub, string.find, string.gsub, string.format, string.lower
local concat, insert = table.concat, table.insert
local type, tostring, tonumber, ipairs, setmetatable = type, tostring, tonumber, ipairs, setmetatable

local TYPES = { A = 1, NS = 2, CNAME = 5, SOA = 6, PTR = 12, MX = 15, TXT = 16, AAAA = 28, SRV = 33, SPF = 99 }
local Resolver = { _VERSION = "0.23", CLASS_IN = 1, SECTION_AN = 1, SECTION_NS = 2, SECTION_AR = 3 }
for name, number in pairs(TYPES) do Resolver["TYPE_" .. name] = number end
local meta = { __index = Resolver }

local errors = { "format error", "server failure", "name error", "not implemented", "refused" }
-- Compressed names refer to earlier ones; more steps than this are a loop.
local MOST_JUMPS = 128
local UDP_MOST = 4096

function Resolver.new(_, options)
  if not options then return nil, "no options table specified" end
  local servers = options.nameservers
  if not servers or #servers == 0 then return nil, "no nameservers specified" end
  local timeout = options.timeout or 2000
  local list = {}
  for i, server in ipairs(servers) do
    local host, port = server, 53
    if type(server) == "table" then host, port = server[1], server[2] or 53 end
    list[i] = { host, port }
  end
  return setmetatable({
    servers = list, timeout = timeout, retrans = options.retrans or 5, no_recurse = options.no_recurse,
    current = options.no_random and 1 or math.random(1, #list),
  }, meta)
end

function Resolver.set_timeout(self, milliseconds)
  self.timeout = milliseconds
  return true
end

function Resolver.destroy() end

local function next_server(self)
  local server = self.servers[self.current]
  self.current = self.current % #self.servers + 1
  return server
end

-- a..z of each label with its length before it
local function encode_name(name)
  local parts = {}
  for label in name:gmatch("[^.]+") do
    if #label > 63 then return nil, "bad name" end
    parts[#parts + 1] = char(#label) .. label
  end
  local text = concat(parts) .. "\0"
  if #text > 255 or find(name, "..", 1, true) or sub(name, 1, 1) == "." then return nil, "bad name" end
  return text
end

local function build(self, name, options)
  local kind = options and options.qtype or Resolver.TYPE_A
  local encoded, err = encode_name(name)
  if not encoded then return nil, err end
  local id = math.random(0, 65535)
  local recurse = self.no_recurse and 0 or 1
  return char(rshift(id, 8), band(id, 255), recurse, 0, 0, 1, 0, 0, 0, 0, 0, 0) .. encoded
    .. char(rshift(kind, 8), band(kind, 255), 0, 1), id, #encoded
end

local function get2(s, i)
  local a, b = byte(s, i, i + 1)
  if not b then return nil end
  return a * 256 + b
end

local function get4(s, i)
  local high, low = get2(s, i), get2(s, i + 2)
  if not high or not low then return nil end
  return high * 65536 + low
end

-- The name at `at`, and the place behind it.
local function decode_name(s, at)
  local labels, behind = {}, nil
  for _ = 1, MOST_JUMPS do
    local n = byte(s, at)
    if not n then return nil, "truncated" end
    if n == 0 then return concat(labels, "."), behind or at + 1 end
    if n >= 192 then
      local low = byte(s, at + 1)
      if not low then return nil, "truncated" end
      behind = behind or at + 2
      at = (n - 192) * 256 + low + 1
    else
      if at + n > #s then return nil, "truncated" end
      labels[#labels + 1] = sub(s, at + 1, at + n)
      at = at + 1 + n
    end
  end
  return nil, "the name refers to itself"
end

local function address6(s, at)
  local groups = {}
  for i = 0, 7 do groups[i + 1] = format("%x", get2(s, at + 2 * i)) end
  return concat(groups, ":")
end

-- Fills in what an answer's type brings; false when it is cut short.
local function decode_data(s, at, length, answer)
  local kind, last = answer.type, at + length - 1
  if last > #s then return false end
  if kind == TYPES.A then
    if length ~= 4 then return false end
    answer.address = format("%d.%d.%d.%d", byte(s, at, last))
  elseif kind == TYPES.AAAA then
    if length ~= 16 then return false end
    answer.address = address6(s, at)
  elseif kind == TYPES.CNAME then
    answer.cname = decode_name(s, at)
  elseif kind == TYPES.NS then
    answer.nsdname = decode_name(s, at)
  elseif kind == TYPES.PTR then
    answer.ptrdname = decode_name(s, at)
  elseif kind == TYPES.MX then
    answer.preference, answer.exchange = get2(s, at), (decode_name(s, at + 2))
  elseif kind == TYPES.SRV then
    if length < 7 then return false end
    answer.priority, answer.weight, answer.port = get2(s, at), get2(s, at + 2), get2(s, at + 4)
    answer.target = decode_name(s, at + 6)
  elseif kind == TYPES.TXT or kind == TYPES.SPF then
    local texts = {}
    while at <= last do
      local n = byte(s, at)
      texts[#texts + 1] = sub(s, at + 1, at + n)
      at = at + 1 + n
    end
    local key = kind == TYPES.TXT and "txt" or "spf"
    answer[key] = #texts == 1 and texts[1] or texts
  elseif kind == TYPES.SOA then
    answer.mname, at = decode_name(s, at)
    if not answer.mname then return false end
    answer.rname, at = decode_name(s, at)
    if not answer.rname then return false end
    answer.serial, answer.refresh, answer.retry = get4(s, at), get4(s, at + 4), get4(s, at + 8)
    answer.expire, answer.minimum = get4(s, at + 12), get4(s, at + 16)
  else
    answer.rdata = sub(s, at, last)
  end
  return true
end

local function read_section(s, at, count, section, list)
  for _ = 1, count do
    local answer, name = { section = section }, nil
    name, at = decode_name(s, at)
    if not name then return nil, at end
    answer.name, answer.type, answer.class, answer.ttl = name, get2(s, at), get2(s, at + 2), get4(s, at + 4)
    local length = get2(s, at + 8)
    if not length or not decode_data(s, at + 10, length, answer) then return nil, "truncated" end
    at = at + 10 + length
    list[#list + 1] = answer
  end
  return at
end

-- Answers; or nil and an error, "truncated" when the server has more than fits.
local function parse(s, id, options)
  if #s < 12 then return nil, "truncated" end
  if get2(s, 1) ~= id then return nil, "id mismatch" end
  local flags = get2(s, 3)
  if band(flags, 0x8000) == 0 then return nil, "bad QR flag in the DNS response" end
  if band(flags, 0x200) ~= 0 then return nil, "truncated" end
  local list = {}
  local code = band(flags, 15)
  if code ~= 0 then list.errcode, list.errstr = code, errors[code] or "unknown" end
  local at = 13
  for _ = 1, get2(s, 5) do
    local name
    name, at = decode_name(s, at)
    if not name then return nil, at end
    at = at + 4
  end
  local counts, wanted = { get2(s, 7), get2(s, 9), get2(s, 11) }, { code == 0, false, false }
  if options then wanted[2], wanted[3] = options.authority_section, options.additional_section end
  for section = 1, 3 do
    local into = wanted[section] and list or {}
    local err
    at, err = read_section(s, at, counts[section], section, into)
    if not at then return nil, err end
  end
  return list
end

local function over_tcp(self, server, query, id, options)
  local sock, err = socket.tcp()
  if not sock then return nil, err end
  sock:settimeout(self.timeout)
  local ok
  ok, err = sock:connect(server[1], server[2])
  if not ok then
    return nil, "failed to connect to TCP server " .. tostring(server[1]) .. ":" .. server[2] .. ": " .. tostring(err)
  end
  ok, err = sock:send(char(rshift(#query, 8), band(#query, 255)) .. query)
  if not ok then
    sock:close()
    return nil, "failed to send query to TCP server: " .. tostring(err)
  end
  local head
  head, err = sock:receive(2)
  if not head then
    sock:close()
    return nil, "failed to receive the reply length field from TCP server: " .. tostring(err)
  end
  local text
  text, err = sock:receive(get2(head, 1))
  sock:close()
  if not text then return nil, "failed to receive the reply message body from TCP server: " .. tostring(err) end
  return parse(text, id, options)
end

local function over_udp(self, server, query, id, options)
  local sock, err = socket.udp()
  if not sock then return nil, err end
  local ok
  ok, err = sock:setpeername(server[1], server[2])
  if not ok then return nil, "failed to set peer name: " .. tostring(err) end
  sock:settimeout(self.timeout)
  ok, err = sock:send(query)
  if not ok then
    sock:close()
    return nil, "failed to send request to UDP server " .. tostring(server[1]) .. ":" .. server[2] .. ": " .. tostring(err)
  end
  -- An answer to an earlier query, or nobody's, is passed over.
  for _ = 1, 128 do
    local text
    text, err = sock:receive(UDP_MOST)
    if not text then break end
    local list
    list, err = parse(text, id, options)
    if list or err ~= "id mismatch" then
      sock:close()
      return list, err
    end
  end
  sock:close()
  return nil, "failed to receive reply from UDP server " .. tostring(server[1]) .. ":" .. server[2] .. ": " .. tostring(err)
end

function Resolver.tcp_query(self, name, options)
  local query, id = build(self, name, options)
  if not query then return nil, id end
  return over_tcp(self, next_server(self), query, id, options)
end

-- query(name, options, tries): `tries` gets the error of each try that failed.
function Resolver.query(self, name, options, tries)
  local query, id = build(self, name, options)
  if not query then return nil, id, tries end
  local err
  for i = 1, self.retrans do
    local server, list = next_server(self), nil
    if socket.udp then
      list, err = over_udp(self, server, query, id, options)
      if not list and err == "truncated" then list, err = over_tcp(self, server, query, id, options) end
    else
      list, err = over_tcp(self, server, query, id, options)
    end
    if list then
      -- A server that cannot answer is no answer yet.
      if not list.errcode or list.errcode ~= 2 or i == self.retrans then return list, nil, tries end
      err = list.errstr
    end
    if tries then tries[#tries + 1] = err end
  end
  return nil, err, tries
end

function Resolver.compress_ipv6_addr(address)
  local text = gsub(":" .. gsub(address, "^::", ":0:") .. ":", ":0+(%x)", ":%1")
  local best, at, length = nil, nil, 1
  local from = 1
  while true do
    local a, b = find(text, ":[0:]*:", from)
    if not a then break end
    local zeros = select(2, gsub(sub(text, a, b), "0", ""))
    if zeros > length then best, at, length = sub(text, a, b), a, zeros end
    from = b
  end
  if best then text = sub(text, 1, at - 1) .. "::" .. sub(text, at + #best) end
  text = gsub(text, "^:([^:])", "%1")
  return (gsub(text, "([^:]):$", "%1"))
end

function Resolver.expand_ipv6_addr(address)
  local head, tail = address:match("^(.-)::(.*)$")
  local function groups(text)
    local list = {}
    for group in text:gmatch("[^:]+") do list[#list + 1] = group end
    return list
  end
  if not head then return address end
  local list, behind = groups(head), groups(tail)
  for _ = 1, 8 - #list - #behind do insert(list, "0") end
  for _, group in ipairs(behind) do insert(list, group) end
  return concat(list, ":")
end

function Resolver.arpa_str(address)
  if find(address, ":", 1, true) then
    local digits = {}
    for group in Resolver.expand_ipv6_addr(address):gmatch("[^:]+") do
      for digit in format("%04x", tonumber(group, 16)):gmatch(".") do insert(digits, 1, digit) end
    end
    return lower(concat(digits, ".")) .. ".ip6.arpa"
  end
  local a, b, c, d = address:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  if not a then return address end
  return concat({ d, c, b, a }, ".") .. ".in-addr.arpa"
end

function Resolver.reverse_query(self, address)
  return self:query(Resolver.arpa_str(address), { qtype = Resolver.TYPE_PTR })
end

return Resolver
