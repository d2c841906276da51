-- Products and their pages. A product is kept as the JSON text that the database gave: a string is
-- stored as its bytes, so the component in Rust reads the same values.
local cache = require "phasor.cache"
local cjson = require "cjson"
local database = require "database"

local products = assert(cache.open("products"))
local pages = assert(cache.open("pages"))

local Shop = {}

-- The source: what it gives is kept, nil too ("there is no such product"); an error is not.
local function ask_database(id)
  local answer = ngx.location.capture("/database/" .. id)
  if answer.status == 200 then return answer.body end
  if answer.status == 404 then return nil end
  return nil, "the database says " .. answer.status
end

-- The product's JSON or nil, the error, the level, whether it is stale.
local function product(id)
  return products:get("product:" .. id, nil, ask_database, id)
end

-- A product, and where it came from.
function Shop.show(id)
  local text, err, level, stale = product(id)
  if err then
    ngx.status = 503
    return ngx.say(err)
  end
  ngx.header["Content-Type"] = "application/json"
  ngx.say('{"level":"', level, '","stale":', stale, ',"product":', text or "null", "}")
end

-- The page of a product. The cache of the route keeps it as long as it says here, and lets it go
-- when somebody purges its tag.
function Shop.page(id)
  local text, err = product(id)
  if err then return ngx.exit(503) end
  if not text then return ngx.exit(404) end
  local it = cjson.decode(text)
  ngx.header["Cache-Control"] = "max-age=5, stale-while-revalidate=60, stale-if-error=600"
  ngx.header["Cache-Tag"] = "product-" .. id
  ngx.header["Content-Type"] = "text/html; charset=utf-8"
  ngx.say("<!doctype html><title>", it.name, "</title><h1>", it.name, "</h1><p>It costs ", it.price, ".")
end

-- When this answers, no worker has the old price in any level, and no old page.
function Shop.change(id, price)
  if not id or not price then return ngx.exit(400) end
  local ok, err = database.change(id, price)
  if not ok then
    ngx.status = 404
    return ngx.say(err)
  end
  assert(products:delete("product:" .. id))
  assert(pages:purge_answers { tag = "product-" .. id })
  ngx.say("changed")
end

-- Empties both caches.
function Shop.forget()
  assert(products:purge())
  assert(pages:purge())
  ngx.say("forgotten")
end

function Shop.counters()
  ngx.header["Content-Type"] = "application/json"
  ngx.header["Cache-Control"] = "no-store"
  ngx.say(cjson.encode {
    products = products:counters(),
    pages = pages:counters(),
    database = database.state(),
  })
end

return Shop
