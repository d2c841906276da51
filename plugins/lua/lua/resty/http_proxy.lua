-- What of `resty.http` stands between a client and a server: the client's request goes on, the answer back.
local body = require "resty.http_body"
local by_length, by_chunks = body.by_length, body.by_chunks
local lower, find, gsub = string.lower, string.find, string.gsub
local pairs, require, tonumber = pairs, require, tonumber

local Proxy = {}

-- The client's own request body, as something that `request` can send.
function Proxy.get_client_body_reader(_, chunk_size, sock)
  local headers = ngx.req.get_headers()
  local length, coding = tonumber(headers["Content-Length"]), headers["Transfer-Encoding"]
  if not sock then
    local err
    sock, err = (ngx.req.socket or require("phasor.body").socket)()
    if not sock then
      if err == "no body" then return nil end
      return nil, err
    end
  end
  if coding and find(lower(coding), "chunked", 1, true) then return by_chunks(sock, chunk_size, {}) end
  if length then return by_length(sock, length, chunk_size) end
  return nil
end

local hop_by_hop = {
  ["connection"] = true, ["keep-alive"] = true, ["proxy-authenticate"] = true, ["proxy-authorization"] = true,
  ["te"] = true, ["trailers"] = true, ["transfer-encoding"] = true, ["upgrade"] = true, ["content-length"] = true,
}

-- Passes the client's request on, and an answer back.
function Proxy.proxy_request(self, chunk_size)
  return self:request {
    method = ngx.req.get_method(),
    path = gsub(ngx.var.uri, "%s", "%%20"),
    query = ngx.var.args,
    body = self:get_client_body_reader(chunk_size),
    headers = ngx.req.get_headers(),
  }
end

function Proxy.proxy_response(_, answer, chunk_size)
  if not answer then
    ngx.log(ngx.ERR, "no response provided")
    return
  end
  ngx.status = answer.status
  for name, value in pairs(answer.headers) do
    if not hop_by_hop[lower(name)] then ngx.header[name] = value end
  end
  while answer.body_reader do
    local piece, err = answer.body_reader(chunk_size or 65536)
    if err then
      ngx.log(ngx.ERR, err)
      break
    end
    if not piece then break end
    local ok
    ok, err = ngx.print(piece)
    if not ok then
      ngx.log(ngx.ERR, err)
      break
    end
    ngx.flush(true)
  end
end

return Proxy
