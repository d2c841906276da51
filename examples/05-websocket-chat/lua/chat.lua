-- One WebSocket: one light thread reads what its client says, another sends what the room says.
local server = require "resty.websocket.server"
local semaphore = require "ngx.semaphore"
local cjson = require "cjson.safe"
local Room = require "room"

-- A browser answers pings by itself: so long it may be silent, and so long it may take what is sent.
local SILENCE = 30000
-- Of a frame, either way: what one says, and what a busy room says at once.
local LONGEST, LARGEST = 4096, 1048576

local function argument(name, most)
  local text = ngx.unescape_uri(ngx.var["arg_" .. name] or "")
  text = text:gsub("%c", ""):sub(1, most)
  return text ~= "" and text or nil
end

local name, who = argument("room", 40), argument("name", 40)
if not name or not who then return ngx.exit(ngx.HTTP_BAD_REQUEST) end
local wb, err = server:new{ timeout = SILENCE, max_recv_len = LONGEST, max_send_len = LARGEST }
if not wb then
  ngx.log(ngx.INFO, "no WebSocket: ", err)
  if ngx.headers_sent then return end
  ngx.header["Upgrade"] = "websocket"
  return ngx.exit(426)
end

local room = Room.open(name)
local id = ngx.var.connection

-- Two threads send: one after the other.
local turn = semaphore.new(1)
local function send(kind, ...)
  local ok, err = turn:wait(SILENCE / 1000)
  if not ok then return nil, err end
  ok, err = wb["send_" .. kind](wb, ...)
  turn:post()
  return ok, err
end

local function post(kind, id, who, text)
  local ok, err = room:post(cjson.encode{ kind = kind, id = id, who = who, text = text, time = ngx.time() })
  if not ok then ngx.log(ngx.ERR, "the room is full: ", err) end
end

-- Still here; and those that are gone without a word have left.
local function stay()
  for gone, name in pairs(room:stay(id)) do post("left", gone, name) end
end

-- Each frame is a list of messages.
local function tell(text)
  return send("text", text)
end

local function read()
  local quiet, message = 0, {}
  while true do
    local data, kind, err = wb:recv_frame()
    if data then
      quiet = 0
    elseif err:find(": timeout", 1, true) and quiet < 2 then
      quiet = quiet + 1
      stay()
      send("ping", "")
    else
      return err
    end
    if kind == "text" or kind == "continuation" then
      message[#message + 1] = data
      if #message > 16 then return "too many pieces" end
      if err ~= "again" then
        post("message", id, who, table.concat(message))
        message = {}
      end
    elseif kind == "ping" then
      send("pong", data)
    elseif kind == "close" then
      send("close", 1000, "")
      return "closed"
    elseif kind == "binary" then
      send("close", 1003, "text only")
      return "binary"
    end
  end
end

-- Who comes or goes from here on is in the list, or told behind `seen`, or both.
local seen = room:newest()
tell('[{"kind":"people","people":' .. room:enter(id, who) .. "}]")
stay()
post("joined", id, who)
local reader = ngx.thread.spawn(read)
local writer = ngx.thread.spawn(room.follow, room, seen, tell)
local _, why = ngx.thread.wait(reader, writer)
ngx.thread.kill(reader)
ngx.thread.kill(writer)
room:leave(id)
post("left", id, who)
ngx.log(ngx.INFO, who, " left ", name, ": ", why)
