-- Stands for a database: it takes its time, it can be switched off, and it counts how often it was
-- asked. What was changed lies in a shared dict, so that all workers see one database.
local cjson = require "cjson"
local dict = ngx.shared.database

local Database = {}

-- Seconds that an answer takes.
local SLOW = 0.3

local products = {
  ["1"] = { name = "a lamp", price = 40 },
  ["2"] = { name = "a chair", price = 75 },
  ["3"] = { name = "an umbrella", price = 18 },
  ["4"] = { name = "a kettle", price = 32 },
  ["5"] = { name = "a clock", price = 25 },
}

function Database.answer(id)
  dict:incr("asked", 1, 0)
  ngx.sleep(SLOW)
  if dict:get("off") then return ngx.exit(503) end
  local product = products[id]
  if not product then return ngx.exit(404) end
  ngx.header["Content-Type"] = "application/json"
  ngx.print(cjson.encode {
    id = id,
    name = product.name,
    price = dict:get("price:" .. id) or product.price,
  })
end

function Database.change(id, price)
  if not products[id] then return nil, "no such product" end
  return dict:set("price:" .. id, price)
end

function Database.power(on)
  dict:set("off", not on)
  ngx.say(on and "on" or "off")
end

-- How often it was asked, and whether it answers.
function Database.state()
  return { asked = dict:get("asked") or 0, on = not dict:get("off") }
end

return Database
