-- A room is a numbered log in a shared dict: who writes adds the next number, who reads waits until
-- there is a newer one. All workers see the same dict, so nobody has to know who sits where, and a
-- slow reader costs nobody else anything: what is too old for it is gone.
local cjson = require "cjson.safe"
local dict = ngx.shared.chat

local Room = {}
local meta = { __index = Room }

-- Seconds that a message stays, and that somebody counts who gives no sign of himself.
local KEEP, ALIVE = 60, 90
-- How many messages make a piece, and seconds between two pieces of a talk: when many talk, or two
-- thousand come in together, what they say goes out in few pieces.
local PIECE, PAUSE = 64, 0.05

-- The pieces that are being told: all who sit in this worker share them.
local pieces = setmetatable({}, { __mode = "v" })

function Room.open(name)
  return setmetatable({
    last = "last " .. name, message = "message " .. name .. " ", list = "people " .. name,
    alive = "alive " .. name .. " ", swept = "swept " .. name,
  }, meta)
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

-- The messages from one number to another, as a list in JSON; nil when they are too old.
local function piece(self, first, last)
  local key = self.message .. first .. " " .. last
  local told = pieces[key]
  if not told then
    local texts = {}
    for number = first, last do texts[#texts + 1] = dict:get(self.message .. number) end
    told = { text = texts[1] and "[" .. table.concat(texts, ",") .. "]" }
    pieces[key] = told
  end
  return told.text
end

-- Tells every message behind `seen`, in pieces, until telling fails.
function Room:follow(seen, tell)
  while true do
    local last = self:newest()
    if last < seen then seen = last end
    if last > seen then
      -- All pieces but the newest end at the same numbers for all.
      local upto = math.min(last, (math.floor(seen / PIECE) + 1) * PIECE)
      local text = piece(self, seen + 1, upto)
      seen = upto
      if text then
        local ok, err = tell(text)
        if not ok then return err end
        if seen == last then ngx.sleep(PAUSE) end
      end
    else
      local ok, err = dict:wait(self.last, seen > 0 and seen or nil, 60)
      if not ok and err ~= "timeout" then return err end
    end
  end
end

-- Changes the list of people; another who changes it at the same time does not get lost.
local function change(self, f)
  local old, new
  repeat
    old = dict:get(self.list)
    local people = old and cjson.decode(old) or {}
    f(people)
    new = next(people) and cjson.encode(people) or nil
  until old == new or dict:cas(self.list, old, new)
  return new
end

-- Puts somebody on the list; gives it, names by number in JSON.
function Room:enter(id, who)
  dict:set(self.alive .. id, true, ALIVE)
  return change(self, function(people) people[id] = who end)
end

-- Somebody is there, still. Now and then: gives those that are not, whom the list forgets.
function Room:stay(id)
  dict:set(self.alive .. id, true, ALIVE)
  local gone = {}
  if dict:add(self.swept, true, ALIVE / 3) then
    change(self, function(people)
      gone = {}
      for other, who in pairs(people) do
        if not dict:get(self.alive .. other) then gone[other], people[other] = who, nil end
      end
    end)
  end
  return gone
end

function Room:leave(id)
  dict:delete(self.alive .. id)
  change(self, function(people) people[id] = nil end)
end

return Room
