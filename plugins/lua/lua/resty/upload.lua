-- `resty.upload`: a multipart body (RFC 7578) in pieces, as it comes from the client.
local request_socket = ngx.req.socket or require("phasor.body").socket
local match = string.match
local setmetatable, type = setmetatable, type

local Upload = { _VERSION = "0.11" }
local meta = { __index = Upload }

local CHUNK_SIZE, MAX_LINE_SIZE = 4096, 512
local BEGINNING, READING_HEADER, READING_BODY, ENDED = 1, 2, 3, 4

local function boundary_of(header)
  if type(header) == "table" then header = header[1] end
  if not header then return nil, "no Content-Type header" end
  return match(header, ";%s*[bB][oO][uU][nN][dD][aA][rR][yY]=\"([^\"]+)\"")
    or match(header, ";%s*[bB][oO][uU][nN][dD][aA][rR][yY]=([^\",;%s]+)")
end

-- `keep`: the body stays where ngx.req.get_body_data finds it.
function Upload.new(_, chunk_size, max_line_size, keep)
  local boundary = boundary_of(ngx.var.http_content_type)
  if not boundary then return nil, "no boundary defined in Content-Type" end
  local sock, err = request_socket()
  if not sock then return nil, err end
  if keep then ngx.req.init_body(chunk_size or CHUNK_SIZE) end
  return setmetatable({
    sock = sock, size = chunk_size or CHUNK_SIZE, line_size = max_line_size or MAX_LINE_SIZE,
    boundary = boundary, state = BEGINNING, keep = keep,
    until_boundary = sock:receiveuntil("\r\n--" .. boundary),
    until_line_end = sock:receiveuntil("\r\n"),
  }, meta)
end

function Upload.set_timeout(self, milliseconds)
  if not self.sock then return nil, "not initialized" end
  return self.sock:settimeout(milliseconds)
end

local function kept(self, text)
  if self.keep then ngx.req.append_body(text) end
end

-- Behind a boundary: `--` ends the form, a line end begins the next part.
local function behind_boundary(self)
  local two, err = self.sock:receive(2)
  if not two then return nil, nil, err end
  kept(self, two)
  if two == "--" then
    self.state = ENDED
    -- What follows the form belongs to nobody.
    while true do
      local rest
      rest = self.sock:receiveany(self.size)
      if not rest then break end
      kept(self, rest)
    end
    if self.keep then ngx.req.finish_body() end
    return true
  end
  if two ~= "\r\n" then
    local line
    line, err = self.until_line_end(self.line_size)
    if not line then return nil, nil, err end
    kept(self, line .. "\r\n")
    local more = self.until_line_end(self.line_size)
    if more then return nil, nil, "line too long: " .. line .. more .. "..." end
  end
  self.state = READING_HEADER
  return false
end

local function read_header(self)
  local line, err = self.until_line_end(self.line_size)
  if not line then return nil, nil, err end
  local more
  more, err = self.until_line_end(self.line_size)
  if more then return nil, nil, "line too long: " .. line .. more .. "..." end
  if err then return nil, nil, err end
  kept(self, line .. "\r\n")
  if line == "" then
    self.state = READING_BODY
    return self:read()
  end
  local key, value = match(line, "^([^: \t]+)%s*:%s*(.+)$")
  if not key then return "header", line end
  return "header", { key, value, line }
end

local function read_body(self)
  local piece, err
  repeat
    piece, err = self.until_boundary(self.size)
    if err then return nil, nil, err end
  until piece ~= ""
  if piece then
    kept(self, piece)
    return "body", piece
  end
  kept(self, "\r\n--" .. self.boundary)
  local over, _, why = behind_boundary(self)
  if over == nil then return nil, nil, why end
  return "part_end"
end

-- What comes before the first boundary is dropped (RFC 2046, 5.1.1).
local function begin(self)
  local first = "--" .. self.boundary
  local text, err = self.sock:receive(#first)
  if not text then return nil, nil, err end
  kept(self, text)
  if text ~= first then
    repeat
      text, err = self.until_boundary(self.size)
      if err then return nil, nil, err end
    until not text
    kept(self, "\r\n--" .. self.boundary)
  end
  local over, _, why = behind_boundary(self)
  if over == nil then return nil, nil, why end
  if over then return "eof" end
  return read_header(self)
end

-- "header", { name, value, line } · "body", piece · "part_end" · "eof"; or nil, nil, error.
function Upload.read(self)
  local state = self.state
  if state == BEGINNING then return begin(self) end
  if state == READING_HEADER then return read_header(self) end
  if state == READING_BODY then return read_body(self) end
  return "eof", nil
end

return Upload
