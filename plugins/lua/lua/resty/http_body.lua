-- The three ways in which an HTTP/1.1 body ends, as readers: each call gives the next piece.
local new_headers = require("resty.http_headers").new
local match = string.match
local tonumber = tonumber

local Body = {}
-- What trailers and one line of a chunked body may take.
local MOST_HEADERS, MOST_LINE = 1000, 65536

-- Reads `length` bytes in pieces.
function Body.by_length(sock, length, default)
  local left = length
  return function(most)
    most = most or default
    if left <= 0 then return nil end
    local want = most and most < left and most or left
    local data, err, part = sock:receive(want)
    if not data then
      left = 0
      if part and #part > 0 then return part, err end
      return nil, err
    end
    left = left - #data
    return data
  end
end

-- Reads until the server closes.
function Body.by_close(sock, default)
  local over = false
  return function(most)
    if over then return nil end
    most = most or default
    local data, err, part
    if most then data, err, part = sock:receive(most) else data, err, part = sock:receive("*a") end
    if data then
      if not most then over = true end
      return data
    end
    over = true
    if err == "closed" then
      if part and #part > 0 then return part end
      return nil
    end
    return nil, err, part
  end
end

-- Reads a chunked body; what follows it are trailers.
function Body.by_chunks(sock, default, done)
  local left, over = 0, false
  return function(most)
    if over then return nil end
    most = most or default
    if left == 0 then
      local line, err = sock:receive("*l")
      if not line then
        over = true
        return nil, err
      end
      if #line > MOST_LINE then return nil, "chunk size too long" end
      left = tonumber(match(line, "^%s*(%x+)"), 16)
      if not left then
        over = true
        return nil, "unable to read chunksize"
      end
      if left == 0 then
        over = true
        done.trailers = new_headers()
        for _ = 1, MOST_HEADERS do
          line, err = sock:receive("*l")
          if not line then return nil, err end
          if line == "" then break end
          local name, value = match(line, "^([^%s:]+)%s*:%s*(.-)%s*$")
          if name then done.trailers[name] = value end
        end
        return nil
      end
    end
    local want = most and most < left and most or left
    local data, err = sock:receive(want)
    if not data then
      over = true
      return nil, err
    end
    left = left - #data
    if left == 0 then
      local ok
      ok, err = sock:receive(2)
      if not ok then
        over = true
        return nil, err
      end
    end
    return data
  end
end

return Body
