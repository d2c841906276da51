-- `resty.http_headers`: a table of headers whose names have no case, and in which `_` stands for `-`.
local lower, gsub = string.lower, string.gsub
local rawget, rawset, setmetatable, type = rawget, rawset, setmetatable, type

local Headers = { _VERSION = "0.17.2" }

function Headers.new()
  local names = {}
  return setmetatable({}, {
    __index = function(t, name)
      if type(name) ~= "string" then return nil end
      local kept = names[lower((gsub(name, "_", "-")))]
      if kept then return rawget(t, kept) end
    end,
    __newindex = function(t, name, value)
      if type(name) ~= "string" then return rawset(t, name, value) end
      name = gsub(name, "_", "-")
      local key = lower(name)
      local kept = names[key]
      if not kept then
        kept = name
        names[key] = name
      end
      rawset(t, kept, value)
    end,
  })
end

return Headers
