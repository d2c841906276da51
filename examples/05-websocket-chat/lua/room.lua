-- A room is a numbered log in a shared dict: who writes adds the next number, who reads waits until
-- there is a newer one. All workers see the same dict, so nobody has to know who sits where, and a
-- slow reader costs nobody else anything: what is too old for it is gone.
local cjson = require "cjson.safe"
local dict = ngx.shared.chat

local Room = {}
local meta = { __index = Room }

-- Seconds that a message stays, and that somebody counts who says nothing of himself.
local KEEP, ALIVE = 60, 90

function Room.open(name)
  return setmetatable({ last = "last " .. name, message = "message " .. name .. " ", list = "people " .. name }, meta)
end

-- The number of the newest message.
function Room:newest()
  return dict:get(self.last) or 0
end

-- A number is taken together with its message, so that up to `last` there is never a gap.
function Room:post(text)
  local number = self:newest()
  local ok, err
  repeat
    number = number + 1
    ok, err = dict:add(self.message .. number, text, KEEP)
  until ok or err ~= "exists"
  if not ok then return nil, err end
  return dict:incr(self.last, 1, 0)
end

-- Tells every message behind `seen`, until telling fails.
function Room:follow(seen, tell)
  while true do
    local last = self:newest()
    if last < seen then seen = last end
    while seen < last do
      seen = seen + 1
      local text = dict:get(self.message .. seen)
      if text then
        local ok, err = tell(text)
        if not ok then return err end
      end
    end
    local ok, err = dict:wait(self.last, seen > 0 and seen or nil, 60)
    if not ok and err ~= "timeout" then return err end
  end
end

-- Changes the list of people; another who changes it at the same time does not get lost.
local function change(self, f)
  local old, new, ok
  repeat
    old = dict:get(self.list)
    local people = old and cjson.decode(old) or {}
    f(people)
    new = next(people) and cjson.encode(people) or nil
    ok = old == new or dict:cas(self.list, old, new)
  until ok
end

-- Somebody is there, still.
function Room:stay(id, who)
  local now = ngx.time()
  change(self, function(people)
    for other, entry in pairs(people) do
      if now - entry.time > ALIVE then people[other] = nil end
    end
    people[id] = { who = who, time = now }
  end)
end

function Room:leave(id)
  change(self, function(people) people[id] = nil end)
end

-- Their names, in order.
function Room:people()
  local names = setmetatable({}, cjson.array_mt)
  for _, entry in pairs(cjson.decode(dict:get(self.list) or "{}")) do names[#names + 1] = entry.who end
  table.sort(names)
  return names
end

return Room
