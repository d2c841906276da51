-- `ffi`, as far as modules use it for buffers of bytes. There is no machine code: what would declare
-- or call some is an error that says so.
local char, sub, concat = string.char, string.sub, table.concat
local min, type, unpack = math.min, type, unpack
local match, setmetatable, error = string.match, setmetatable, error

-- `string.char` takes no more.
local PIECE = 4096
local buffer, kind = {}, {}

-- The number of bytes that a name says, "?" where the caller says it; nil when it is no buffer.
local function size_of(name)
  local size = match(name, "^%s*char%s*%[(%d*%??)%]%s*$") or match(name, "^%s*unsigned%s+char%s*%[(%d*%??)%]%s*$")
    or match(name, "^%s*uint8_t%s*%[(%d*%??)%]%s*$")
  return size ~= "" and size or nil
end

local function typeof(name)
  local size = type(name) == "string" and size_of(name)
  if not size then error("ffi is offered for buffers of bytes only: there is no machine code to call", 3) end
  return setmetatable({ size = size }, kind)
end

local function new(of, size)
  if getmetatable(of) ~= kind then of = typeof(of) end
  size = of.size == "?" and size or tonumber(of.size)
  local bytes = {}
  for i = 0, size - 1 do bytes[i] = 0 end
  return setmetatable(bytes, buffer)
end
kind.__call = new

local ffi = {}

function ffi.typeof(name) return typeof(name) end
function ffi.new(of, size) return new(of, size) end

function ffi.string(bytes, length)
  if type(bytes) == "string" then return sub(bytes, 1, length) end
  if not length then
    length = 0
    while (bytes[length] or 0) ~= 0 do length = length + 1 end
  end
  local parts = {}
  for from = 0, length - 1, PIECE do
    parts[#parts + 1] = char(unpack(bytes, from, min(from + PIECE, length) - 1))
  end
  return concat(parts)
end

return setmetatable(ffi, { __index = function(_, name)
  error("ffi." .. name .. " is not offered: there is no machine code to call", 2)
end })
