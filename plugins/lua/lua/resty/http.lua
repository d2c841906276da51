-- `resty.http`: an HTTP/1.1 client over a cosocket. `request_uri` for a whole answer, `connect` and
-- `request` for one that is read as it comes.
local tcp = ngx.socket.tcp
local encode_args = ngx.encode_args
local concat = table.concat
local lower, sub, match, find = string.lower, string.sub, string.match, string.find
local type, tostring, tonumber, pairs, ipairs = type, tostring, tonumber, pairs, ipairs
local rawget, rawset, setmetatable, select = rawget, rawset, setmetatable, select

local new_headers = require("resty.http_headers").new
local body = require "resty.http_body"
local by_length, by_close, by_chunks = body.by_length, body.by_close, body.by_chunks

local Http = { _VERSION = "0.17.2" }
local meta = { __index = Http }
-- What an answer's head may take.
local MOST_HEADERS = 1000

function Http.new(_)
  local sock, err = tcp()
  if not sock then return nil, err end
  return setmetatable({ sock = sock, keepalive_supported = true }, meta)
end

function Http.set_timeout(self, milliseconds)
  if not self.sock then return nil, "not initialized" end
  return self.sock:settimeout(milliseconds)
end

function Http.set_timeouts(self, connect, send, read)
  if not self.sock then return nil, "not initialized" end
  return self.sock:settimeouts(connect, send, read)
end

local function copy_headers(from)
  local headers = new_headers()
  for name, value in pairs(from or {}) do headers[name] = value end
  return headers
end

-- `{ scheme, host, port, path, query }`
function Http.parse_uri(_, uri, query_in_path)
  if query_in_path == nil then query_in_path = true end
  local scheme, rest = match(uri, "^([hH][tT][tT][pP][sS]?)://(.+)$")
  if not scheme then
    rest = match(uri, "^//(.+)$")
    if not rest then return nil, "bad uri: " .. uri end
    scheme = ngx.var and ngx.var.scheme or "http"
  end
  scheme = lower(scheme)
  local authority, path = match(rest, "^([^/?#]*)([^#]*)")
  local host, port = match(authority, "^(%[[^%]]+%]):?(%d*)$")
  if not host then host, port = match(authority, "^([^:]+):?(%d*)$") end
  if not host then return nil, "bad uri: " .. uri end
  local query
  path, query = match(path, "^([^?]*)%??(.*)$")
  if path == "" then path = "/" end
  if query_in_path and query ~= "" then path, query = path .. "?" .. query, "" end
  return { scheme, host, tonumber(port) or (scheme == "https" and 443 or 80), path, query }
end

local function proxy_for(self, scheme, host)
  local proxy = self.proxy_opts
  if not proxy then return nil end
  for name in (proxy.no_proxy or ""):gmatch("[^%s,]+") do
    if name == "*" or name == host or sub(host, -#name - 1) == "." .. name then return nil end
  end
  return scheme == "https" and proxy.https_proxy or proxy.http_proxy,
    scheme == "https" and proxy.https_proxy_authorization or proxy.http_proxy_authorization
end

function Http.set_proxy_options(self, options)
  self.proxy_opts = options
end

-- CONNECT through a proxy, for TLS.
local function tunnel(self, sock, host, port, authorization)
  local lines = { "CONNECT " .. host .. ":" .. port .. " HTTP/1.1\r\nHost: " .. host .. ":" .. port .. "\r\n" }
  if authorization then lines[2] = "Proxy-Authorization: " .. authorization .. "\r\n" end
  lines[#lines + 1] = "\r\n"
  local bytes, err = sock:send(concat(lines))
  if not bytes then return nil, err end
  local line
  line, err = sock:receive("*l")
  if not line then return nil, err end
  local status = tonumber(match(line, "^HTTP/%d%.%d (%d%d%d)"))
  repeat
    line, err = sock:receive("*l")
    if not line then return nil, err end
  until line == ""
  if status ~= 200 then return nil, "failed to establish a tunnel through a proxy: " .. tostring(status) end
  return true
end

-- connect(host, port, options), connect("unix:…", options) or connect { scheme, host, port, … }
function Http.connect(self, options, ...)
  local sock = self.sock
  if not sock then return nil, "not initialized" end
  self.keepalive_supported, self.request_host, self.ssl = true, nil, false
  if type(options) ~= "table" then
    self.host, self.port = options, select("#", ...) > 0 and type((...)) == "number" and (...) or nil
    return sock:connect(options, ...)
  end
  local scheme, host, port = options.scheme, options.host, options.port
  if not host then return nil, "the host is missing" end
  local unix = sub(host, 1, 5) == "unix:"
  if not port and not unix then port = scheme == "https" and 443 or 80 end
  self.host, self.port, self.ssl = host, port, scheme == "https"
  if options.proxy_opts then self.proxy_opts = options.proxy_opts end
  local proxy, authorization = proxy_for(self, scheme, host)
  local pool = options.pool
  if not pool and (self.ssl or proxy) then
    pool = concat({ scheme or "http", host, tostring(port), tostring(options.ssl_verify),
      tostring(options.ssl_server_name), tostring(proxy),
      options.ssl_client_cert and ngx.md5(options.ssl_client_cert.pem or options.ssl_client_cert) or "" }, ":")
  end
  local connection = { pool = pool, pool_size = options.pool_size, backlog = options.backlog }
  local ok, err
  if unix then
    ok, err = sock:connect(host, connection)
  elseif proxy then
    local parts
    parts, err = self:parse_uri(proxy, false)
    if not parts then return nil, err end
    ok, err = sock:connect(parts[2], parts[3], connection)
  else
    ok, err = sock:connect(host, port, connection)
  end
  if not ok then return nil, err end
  if (sock:getreusedtimes() or 0) == 0 and self.ssl then
    if proxy then
      ok, err = tunnel(self, sock, host, port, authorization)
      if not ok then return nil, err end
    end
    if options.ssl_client_cert then
      ok, err = sock:setclientcert(options.ssl_client_cert, options.ssl_client_priv_key)
      if not ok then return nil, err end
    end
    local verify = options.ssl_verify
    if verify == nil then verify = true end
    ok, err = sock:sslhandshake(options.ssl_reused_session, options.ssl_server_name or host, verify,
      options.ssl_send_status_req)
    if not ok then return nil, err end
  elseif proxy and not self.ssl then
    self.path_prefix = "http://" .. host .. (port == 80 and "" or ":" .. port)
    self.proxy_authorization = authorization
  end
  return true, nil, self.ssl and ok or nil
end

function Http.ssl_handshake(self, ...)
  if not self.sock then return nil, "not initialized" end
  self.ssl = true
  return self.sock:sslhandshake(...)
end

-- 1 when the connection is kept, 2 when it had to be closed.
function Http.set_keepalive(self, ...)
  local sock = self.sock
  if not sock then return nil, "not initialized" end
  if self.keepalive_supported then return sock:setkeepalive(...) end
  local ok, err = sock:close()
  if not ok then return nil, err end
  return 2, "connection must be closed"
end

function Http.get_reused_times(self)
  if not self.sock then return nil, "not initialized" end
  return self.sock:getreusedtimes()
end

function Http.close(self)
  if not self.sock then return nil, "not initialized" end
  return self.sock:close()
end

local function check_field(name, value)
  if find(name, "[%c%s:]") or find(value, "[\r\n%z]") then return nil, "invalid header: " .. name end
  return true
end

local function format_request(self, params, headers)
  local path = params.path or "/"
  local query = params.query
  if query and query ~= "" then
    if type(query) == "table" then query = encode_args(query) end
    if sub(query, 1, 1) ~= "?" then query = "?" .. query end
    path = path .. query
  end
  if find(path, "[%c ]") or find(params.method, "[^%w!#$%%&'*+.^_`|~-]") then return nil, "invalid method or path" end
  local lines = { params.method .. " " .. (self.path_prefix or "") .. path .. " HTTP/" ..
    (params.version == 1 and "1.0" or "1.1") .. "\r\n" }
  for name, value in pairs(headers) do
    for _, one in ipairs(type(value) == "table" and value or { value }) do
      one = tostring(one)
      local fine, err = check_field(tostring(name), one)
      if not fine then return nil, err end
      lines[#lines + 1] = name .. ": " .. one .. "\r\n"
    end
  end
  lines[#lines + 1] = "\r\n"
  return concat(lines)
end

local function send_body(sock, body, chunked)
  if type(body) ~= "function" then return sock:send(body) end
  while true do
    local piece, err = body()
    if not piece then
      if err then return nil, err end
      break
    end
    if #piece > 0 then
      local ok
      if chunked then
        ok, err = sock:send(string.format("%x\r\n", #piece) .. piece .. "\r\n")
      else
        ok, err = sock:send(piece)
      end
      if not ok then return nil, err end
    end
  end
  if chunked then return sock:send("0\r\n\r\n") end
  return true
end

local function default_headers(self, params, headers)
  local body = params.body
  if not headers["Host"] then
    local host = self.host and sub(self.host, 1, 5) ~= "unix:" and self.host or "localhost"
    local usual = self.ssl and 443 or 80
    headers["Host"] = (self.port and self.port ~= usual) and host .. ":" .. self.port or host
  end
  if not headers["User-Agent"] then headers["User-Agent"] = "lua-resty-http/" .. Http._VERSION .. " (Lua)" end
  if params.version == 1 and not headers["Connection"] then headers["Connection"] = "Keep-Alive" end
  if self.proxy_authorization then headers["Proxy-Authorization"] = self.proxy_authorization end
  local chunked = false
  if type(body) == "table" then body = concat(body) end
  if type(body) == "function" then
    local coding = headers["Transfer-Encoding"]
    chunked = coding ~= nil and find(lower(coding), "chunked", 1, true) ~= nil
    if not chunked and not headers["Content-Length"] then
      return nil, "Request body is a function but neither Content-Length nor Transfer-Encoding is set"
    end
  elseif body ~= nil then
    body = tostring(body)
    if not headers["Transfer-Encoding"] and not headers["Content-Length"] then headers["Content-Length"] = #body end
  elseif not headers["Content-Length"] and (params.method == "POST" or params.method == "PUT" or params.method == "PATCH") then
    headers["Content-Length"] = 0
  end
  return true, body, chunked
end

function Http.send_request(self, params)
  local sock = self.sock
  if not sock then return nil, "not initialized" end
  params.method = params.method or "GET"
  params.version = params.version == 1.0 and 1 or params.version
  local headers = copy_headers(params.headers)
  local fine, body, chunked = default_headers(self, params, headers)
  if not fine then return nil, body end
  local text, err = format_request(self, params, headers)
  if not text then return nil, err end
  local expects = headers["Expect"] and lower(headers["Expect"]) == "100-continue"
  if body and type(body) == "string" and not expects then text, body = text .. body, nil end
  local bytes
  bytes, err = sock:send(text)
  if not bytes then return nil, err end
  if body and not expects then
    bytes, err = send_body(sock, body, chunked)
    if not bytes then return nil, err end
  end
  params.pending_body, params.pending_chunked = expects and body or nil, chunked
  return true
end

local function read_head(sock)
  local line, err = sock:receive("*l")
  if not line then return nil, "failed to receive the status line: " .. tostring(err) end
  local version, status, reason = match(line, "^HTTP/(%d%.%d) (%d%d%d) ?(.*)$")
  if not version then return nil, "couldn't parse HTTP status line from response: " .. sub(line, 1, 100) end
  local headers = new_headers()
  for _ = 1, MOST_HEADERS do
    line, err = sock:receive("*l")
    if not line then return nil, err end
    if line == "" then return tonumber(status), tonumber(version), reason, headers end
    local name, value = match(line, "^([^%s:]+)%s*:%s*(.-)%s*$")
    if name then
      local old = headers[name]
      if old == nil then
        headers[name] = value
      elseif type(old) == "table" then
        old[#old + 1] = value
      else
        headers[name] = { old, value }
      end
    end
  end
  return nil, "too many headers"
end

local function has_body(method, status)
  return not (method == "HEAD" or status == 204 or status == 304 or status < 200)
end

local Answer = {}
Answer.__index = Answer

function Answer.read_body(self)
  local reader = self.body_reader
  if not reader then return nil, "no body to be read" end
  local parts = {}
  while true do
    local piece, err = reader()
    if err then return nil, err, concat(parts) end
    if not piece then return concat(parts) end
    parts[#parts + 1] = piece
  end
end

function Answer.read_trailers(self)
  local trailers = self.state and self.state.trailers
  if trailers then
    for name, value in pairs(trailers) do self.headers[name] = value end
  end
  return self.headers
end

function Http.read_response(self, params)
  local sock = self.sock
  if not sock then return nil, "not initialized" end
  local status, version, reason, headers
  repeat
    status, version, reason, headers = read_head(sock)
    if not status then return nil, version end
    if status == 100 and params.pending_body then
      local body = params.pending_body
      params.pending_body = nil
      local ok, err = send_body(sock, body, params.pending_chunked)
      if not ok then return nil, err end
    end
  until status >= 200 or status == 101
  local connection = lower(tostring(headers["Connection"] or ""))
  local asked = lower(tostring((params.headers or {})["Connection"] or (params.headers or {})["connection"] or ""))
  if find(connection, "close", 1, true) or find(asked, "close", 1, true)
    or (version == 1.0 and not find(connection, "keep-alive", 1, true)) then
    self.keepalive_supported = false
  end
  local state, reader = {}, nil
  local with_body = has_body(params.method, status)
  local length = headers["Content-Length"]
  if type(length) == "table" then length = length[1] end
  if with_body then
    local coding = headers["Transfer-Encoding"]
    if type(coding) == "table" then coding = concat(coding, ",") end
    if coding and find(lower(coding), "chunked", 1, true) then
      reader = by_chunks(sock, params.chunk_size, state)
    elseif tonumber(length) then
      reader = by_length(sock, tonumber(length), params.chunk_size)
    else
      self.keepalive_supported = false
      reader = by_close(sock, params.chunk_size or 65536)
    end
  else
    reader = function() return nil end
  end
  return setmetatable({
    status = status, reason = reason, headers = headers, version = version,
    has_body = with_body, body_reader = reader, state = state,
  }, Answer)
end

function Http.request(self, params)
  params.method = params.method or "GET"
  local ok, err = self:send_request(params)
  if not ok then return nil, err end
  return self:read_response(params)
end

-- Several requests at once; each answer is read when something of it is asked for, in order.
function Http.request_pipeline(self, requests)
  for _, params in ipairs(requests) do
    if params.headers and params.headers["Expect"] == "100-continue" then
      return nil, "Cannot pipeline request specifying Expect: 100-continue"
    end
    params.method = params.method or "GET"
    local ok, err = self:send_request(params)
    if not ok then return nil, err end
  end
  local answers = {}
  for i, params in ipairs(requests) do
    answers[i] = setmetatable({ params = params, response_read = false }, {
      __index = function(t, name)
        if not rawget(t, "response_read") then
          rawset(t, "response_read", true)
          local answer, err = self:read_response(params)
          if not answer then
            rawset(t, "err", err)
            return nil
          end
          for key, value in pairs(answer) do rawset(t, key, value) end
        end
        local value = rawget(t, name)
        if value == nil then value = Answer[name] end
        return value
      end,
    })
  end
  return answers
end

-- One request with its connection: the whole answer, with `body`.
function Http.request_uri(self, uri, options)
  local params = {}
  for name, value in pairs(options or {}) do params[name] = value end
  local parts, err = self:parse_uri(uri, false)
  if not parts then return nil, err end
  params.path = params.path or parts[4]
  if parts[5] ~= "" and params.query == nil then params.query = parts[5] end
  params.scheme, params.host, params.port = parts[1], parts[2], parts[3]
  params.ssl_server_name = params.ssl_server_name or (parts[1] == "https" and parts[2]) or nil
  local ok
  ok, err = self:connect(params)
  if not ok then return nil, err end
  local answer
  answer, err = self:request(params)
  if not answer then
    self:close()
    return nil, err
  end
  local body
  body, err = answer:read_body()
  if not body then
    self:close()
    return nil, err
  end
  answer.body = body
  if params.keepalive == false then
    self:close()
  else
    self:set_keepalive(params.keepalive_timeout, params.keepalive_pool)
  end
  return answer
end

for name, method in pairs(require "resty.http_proxy") do Http[name] = method end

return Http
