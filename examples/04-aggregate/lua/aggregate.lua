-- Asks several back ends at once: for all that answer in time, or for the first.
local http = require "phasor.http"

-- Milliseconds that a back end may take.
local PATIENCE = 500

-- Each in a light thread: the requests have begun when this returns.
local function ask(back_ends)
  local threads = {}
  for place, url in ipairs(back_ends) do
    threads[place] = ngx.thread.spawn(http.fetch, url, { timeout = PATIENCE })
  end
  return threads
end

local function all(back_ends)
  for place, thread in ipairs(ask(back_ends)) do
    local _, answer, err = ngx.thread.wait(thread)
    ngx.say(answer and answer.body or back_ends[place]:match("[^/]+$") .. ": " .. err)
  end
end

-- Who fails is not the first. Killing a thread cancels what it waits for.
local function first(back_ends)
  local threads = ask(back_ends)
  local answer
  for _ = 1, #threads do
    local _
    _, answer = ngx.thread.wait(unpack(threads))
    if answer then break end
  end
  for _, thread in ipairs(threads) do ngx.thread.kill(thread) end
  if not answer then
    ngx.status = 502
    return ngx.print("nobody answers")
  end
  ngx.print(answer.body)
end

return { all = all, first = first }
