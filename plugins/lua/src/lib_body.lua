-- `phasor.body`: the request's body as it comes, read as from a socket.
local read = ...
local find, sub = string.find, string.sub
local concat = table.concat

local Body = {}
Body.__index = Body

-- One more piece behind what is there; false at the end, nil and an error.
local function more(self)
  if self.ended then return false end
  local piece, err = read()
  if err then return nil, err end
  if not piece then
    self.ended = true
    return false
  end
  self.buffer = #self.buffer > 0 and self.buffer .. piece or piece
  return true
end

local function take(self, n)
  local data = sub(self.buffer, 1, n)
  self.buffer = sub(self.buffer, n + 1)
  return data
end

-- The whole request has a time-out, `body_timeout`; a part of it has none.
function Body:settimeout() end

-- Exactly so many bytes, a line, or "*a"; nil, why, and what there was.
function Body:receive(wanted)
  if wanted == "*a" then
    local parts = {}
    repeat
      parts[#parts + 1] = take(self, #self.buffer)
      local go_on, err = more(self)
      if err then return nil, err, concat(parts) end
    until not go_on
    return concat(parts)
  end
  if wanted == nil or wanted == "*l" then
    local line, err, rest = self:receiveuntil("\n")()
    if not line then return nil, err, rest end
    return (line:gsub("\r", ""))
  end
  while #self.buffer < wanted do
    local go_on, err = more(self)
    if not go_on then return nil, err or "closed", take(self, #self.buffer) end
  end
  return take(self, wanted)
end

-- What there is, at most so many bytes.
function Body:receiveany(most)
  if #self.buffer == 0 then
    local go_on, err = more(self)
    if not go_on then return nil, err or "closed" end
  end
  return take(self, most)
end

-- An iterator over what comes before a text: all of it, or `size` bytes at a time and then nil.
function Body:receiveuntil(text, options)
  local inclusive = options and options.inclusive
  local over = false
  return function(size)
    if over then
      over = false
      return nil
    end
    while true do
      local from, to = find(self.buffer, text, 1, true)
      local before = from and from - 1
      if from and not (size and before > size) then
        local data = sub(self.buffer, 1, inclusive and to or before)
        self.buffer = sub(self.buffer, to + 1)
        if size then over = true end
        return data
      end
      -- What may be the text's beginning stays.
      local sure = #self.buffer - #text + 1
      if size and (from or sure >= size) then return take(self, size) end
      local go_on, err = more(self)
      if not go_on then return nil, err or "closed", take(self, #self.buffer) end
    end
  end
end

return {
  socket = function() return setmetatable({ buffer = "", ended = false }, Body) end,
}
