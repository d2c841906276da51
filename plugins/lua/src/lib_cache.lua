-- `phasor.cache`: a tiered cache of the configuration. `get` looks into this VM's own copies, then
-- into the process and the levels behind it, then asks the callback, once for all who want the key.
local host = ...
local look, find, lookup, keep, encode, fill, leave =
    host.get, host.find, host.lookup, host.keep, host.encode, host.fill, host.leave
local type, error, pcall, xpcall, tostring, setmetatable =
    type, error, pcall, xpcall, tostring, setmetatable
local traceback, random, format = debug.traceback, math.random, string.format
local spawn, wait = ngx.thread.spawn, ngx.thread.wait

local LEVELS = { [0] = "instance", "memory", "disk", "redis", "callback" }
local FOR_EVER = { ttl = 0 }
local OPTIONS = {
    ttl = true, negative_ttl = true, stale = true, retry = true, wait = true, background = true,
}
local ANSWERS = { key = true, prefix = true, tag = true }

local Cache, Flight = {}, {}
local cache_meta, flight_meta = { __index = Cache }, { __index = Flight }

local function key_of(key)
    local kind = type(key)
    if kind == "string" then
        return key
    elseif kind == "number" then
        return tostring(key)
    elseif kind == "table" then
        return host.join(key)
    end
    error("bad key, string, number or list of them expected, got " .. kind, 3)
end

local function check_options(opts)
    if type(opts) ~= "table" then
        error("bad options, table expected, got " .. type(opts), 3)
    end
    for name in pairs(opts) do
        if not OPTIONS[name] then
            error("unknown option \"" .. tostring(name) .. "\"", 3)
        end
    end
    local background = opts.background
    if background ~= nil and (type(background) ~= "number" or not (background >= 0)) then
        error("bad option \"background\": seconds expected, 0 or more", 3)
    end
end

-- The copies and the number of a cache; what `init` opens is opened again where it is used.
local function ready(self)
    if self.copies then
        return self.copies, self.id
    end
    local id, items, lasting = host.open(self.name)
    if not id then
        error("cache \"" .. self.name .. "\": " .. items, 3)
    end
    local copies = host.copies(id, self.items or items)
    if lasting then
        self.id, self.copies = id, copies
    end
    return copies, id
end

-- A name space's keys carry its generation, a value of the cache like others: who purges the name
-- space changes that, and all its values are out of reach. Should it be evicted, they are, too.
local function generation(self, id, copies)
    if self.generation and host.guarded(copies) then
        return self.generation
    end
    local name = host.join({ "phasor.namespace", self.namespace })
    local state, value, _, _, slot, version = find(id, name, false, FOR_EVER)
    if state == "flight" then
        local flight = value
        value = format("%08x%08x", random(0, 0x7fffffff), random(0, 0x7fffffff))
        slot, version = fill(flight, value, 0)
        leave(flight)
    elseif state ~= "hit" then
        return nil, value
    end
    if value ~= self.generation then
        host.clear(copies, slot, version)
        self.generation = value
    else
        host.guard(copies, slot, version)
    end
    return value
end

-- The key under which the process knows it.
local function place_of(self, id, copies, key)
    if not self.namespace then
        return key
    end
    local now, err = generation(self, id, copies)
    if not now then
        return nil, err
    end
    return host.join({ "phasor.value", self.namespace, now, key })
end

local function board(number, key, copies, shape)
    return setmetatable({ number = number, key = key, copies = copies, shape = shape }, flight_meta)
end

-- find(key, opts, force, shape): a flight, or nil, value, error, level, stale. `shape` makes of a
-- value what this VM keeps of it.
function Cache:find(key, opts, force, shape)
    key = key_of(key)
    local copies, id = self.copies, self.id
    if not copies then
        copies, id = ready(self)
    elseif not force then
        local hit, value = lookup(copies, key)
        if hit then
            return nil, value, nil, "instance", false
        end
    end
    if opts ~= nil then
        check_options(opts)
    end
    local place, wrong = place_of(self, id, copies, key)
    if not place then
        return nil, nil, wrong
    end
    local state, value, level, stale, slot, version, expires = find(id, place, force, opts)
    if state == "malformed" and not force then
        state, value, level, stale, slot, version, expires = find(id, place, true, opts)
    end
    if state == "flight" then
        return board(value, key, copies, shape)
    elseif state == "malformed" then
        return nil, nil, "what is stored is no value of Lua"
    elseif state ~= "hit" then
        return nil, nil, value
    end
    if shape and value ~= nil then
        local shaped, why = shape(value)
        if shaped == nil then
            return nil, nil, why
        end
        value = shaped
    end
    -- What is stale is said to be so each time.
    keep(copies, key, value, slot, version, stale and 0 or expires)
    return nil, value, nil, LEVELS[level], stale
end

-- Stores the value and gives it to all who wait. Gives what this VM keeps of it, or nil and why; then
-- a third result: why it was not stored, although all who wait have got it.
function Flight:fill(value, ttl)
    local good, bytes = pcall(encode, value)
    if not good then
        self:leave()
        return nil, bytes
    end
    local slot, version, expires = fill(self.number, bytes, ttl)
    leave(self.number)
    local why
    if not slot then
        why, version, expires = version, nil, nil
    end
    if self.shape and value ~= nil then
        local shaped, wrong = self.shape(value)
        if shaped == nil then
            return nil, wrong
        end
        value = shaped
    end
    keep(self.copies, self.key, value, slot, version, expires)
    return value, nil, why
end

-- Gives a value to all who wait and stores nothing.
function Flight:pass(value)
    local good, bytes = pcall(encode, value)
    if not good then
        self:leave()
        return nil, bytes
    end
    return host.pass(self.number, bytes)
end

-- The source failed: true and an older value where one may serve, which all who wait get, too.
function Flight:fail(reason)
    local state, value = host.fail(self.number, tostring(reason))
    if state == "hit" then
        return true, value
    end
    return false
end

-- The value that is there still: true and the value, or false.
function Flight:stale()
    local state, value = host.stale(self.number)
    return state == "hit", value
end

function Flight:renew()
    return host.renew_lease(self.number)
end

-- The next in line gets it.
function Flight:leave()
    leave(self.number)
end

local function land(flight, good, value, err, ttl)
    if not good then
        flight:leave()
        return nil, "callback threw an error: " .. tostring(value)
    end
    if err ~= nil then
        local served, old = flight:fail(err)
        if served then
            return old, nil, "memory", true
        end
        return nil, err
    end
    if type(ttl) == "number" and ttl < 0 then
        local passed, why = flight:pass(value)
        if not passed and why ~= "lost" then
            error(why, 0)
        end
        return value, nil, "callback", false
    end
    if type(ttl) ~= "number" then
        ttl = nil
    end
    local kept, why, lost = flight:fill(value, ttl)
    if why then
        error(why, 0)
    end
    if lost and lost ~= "lost" then
        ngx.log(ngx.WARN, "cache: not stored: ", lost)
    end
    return kept, nil, "callback", false
end

-- Leaves the flight to a timer: true when the callback is going to run there. It has no request then.
local function later(flight, callback, ...)
    local function run(premature, ...)
        host.hand_over(flight.number, true)
        if premature then
            flight:leave()
            return
        end
        local _, err = land(flight, xpcall(callback, traceback, ...))
        if err then
            ngx.log(ngx.ERR, "cache: a refresh in the background failed: ", err)
        end
    end
    host.hand_over(flight.number, false)
    local started, err = ngx.timer.at(0, run, ...)
    if not started then
        host.hand_over(flight.number, true)
        ngx.log(ngx.WARN, "cache: no refresh in the background: ", err)
    end
    return started
end

-- What serves whoever has the flight while a timer brings a new value: true, the value, whether it is
-- stale. One that is over for longer than `seconds` does not.
local function meanwhile(flight, seconds)
    local state, value, _, stale, _, _, _, left = host.stale(flight.number)
    return state == "hit" and (left == nil or left > -seconds), value, stale
end

local function fly(flight, opts, force, callback, ...)
    if callback == nil then
        flight:leave()
        return nil
    end
    if not force and opts and opts.background then
        local serves, old, is_stale = meanwhile(flight, opts.background)
        if serves and later(flight, callback, ...) then
            return old, nil, "memory", is_stale
        end
    end
    return land(flight, xpcall(callback, traceback, ...))
end

local function fetch(self, key, opts, force, callback, ...)
    local flight, value, err, level, stale = self:find(key, opts, force)
    if not flight then
        return value, err, level, stale
    end
    return fly(flight, opts, force, callback, ...)
end

-- get(key, opts, callback, ...): value, error, level, stale. The callback gives value, error, ttl.
function Cache:get(key, opts, callback, ...)
    if callback ~= nil and type(callback) ~= "function" then
        error("bad callback, function expected, got " .. type(callback), 2)
    end
    local copies = self.copies
    if not copies or self.namespace or type(key) ~= "string" then
        return fetch(self, key, opts, false, callback, ...)
    elseif opts ~= nil then
        local hit, value = lookup(copies, key)
        if hit then
            return value, nil, "instance", false
        end
        check_options(opts)
    end
    -- Most calls end here: one call of the host, whichever level has it.
    local state, value, level, stale = look(copies, key, opts)
    if state == true then
        return value, nil, LEVELS[level], stale
    end
    if state == "flight" then
        return fly(board(value, key, copies), opts, false, callback, ...)
    elseif state == "malformed" then
        return fetch(self, key, opts, false, callback, ...)
    end
    return nil, value, nil, nil
end

-- Asks the callback although a value is there.
function Cache:renew(key, opts, callback, ...)
    if type(callback) ~= "function" then
        error("bad callback, function expected, got " .. type(callback), 2)
    end
    return fetch(self, key, opts, true, callback, ...)
end

-- get_bulk(keys, opts, callback, concurrency): for each key { value =, err =, level =, stale = }, in
-- their order; callback(key) runs for up to `concurrency` keys at once.
function Cache:get_bulk(keys, opts, callback, concurrency)
    if type(keys) ~= "table" then
        error("bad keys, table expected, got " .. type(keys), 2)
    end
    local found, missing, at = {}, {}, 0
    local copies = ready(self)
    for i = 1, #keys do
        local hit, value = lookup(copies, key_of(keys[i]))
        if hit then
            found[i] = { value = value, level = "instance", stale = false }
        else
            missing[#missing + 1] = i
        end
    end
    local function work()
        while at < #missing do
            at = at + 1
            local i = missing[at]
            local value, err, level, stale = self:get(keys[i], opts, callback, keys[i])
            found[i] = { value = value, err = err, level = level, stale = stale }
        end
    end
    local threads = {}
    for i = 2, math.min(concurrency or 3, #missing) do
        threads[i - 1] = spawn(work)
    end
    work()
    for i = 1, #threads do
        local good, err = wait(threads[i])
        if not good then
            error(err, 0)
        end
    end
    return found
end

-- peek(key, stale): whether the process has it, the value, and the seconds left: nil is for ever,
-- below 0 it is over.
function Cache:peek(key, stale)
    key = key_of(key)
    local copies, id = ready(self)
    local place, wrong = place_of(self, id, copies, key)
    if not place then
        return nil, wrong
    end
    local state, value, _, went_stale, _, _, _, left = host.peek(id, place, stale)
    if state ~= "hit" then
        return false
    end
    return true, value, left, went_stale
end

-- set(key, value, opts): every worker sees it when this returns. Gives true, or nil and why.
function Cache:set(key, value, opts, shape)
    key = key_of(key)
    if opts ~= nil then
        check_options(opts)
    end
    local bytes = encode(value)
    local copies, id = ready(self)
    keep(copies, key)
    local place, wrong = place_of(self, id, copies, key)
    if not place then
        return nil, wrong
    end
    local slot, version, expires = host.set(id, place, bytes, opts)
    if not slot then
        return nil, version
    end
    if shape and value ~= nil then
        local why
        value, why = shape(value)
        if value == nil then
            return nil, why
        end
    end
    keep(copies, key, value, slot, version, expires)
    return true
end

function Cache:delete(key)
    key = key_of(key)
    local copies, id = ready(self)
    keep(copies, key)
    local place, wrong = place_of(self, id, copies, key)
    if not place then
        return nil, wrong
    end
    local slot, err = host.delete(id, place)
    if not slot then
        return nil, err
    end
    return true
end

-- Empties this cache, or this name space of it, and no other.
function Cache:purge()
    local copies, id = ready(self)
    local slot, version
    if self.namespace then
        local name = host.join({ "phasor.namespace", self.namespace })
        local value = format("%08x%08x", random(0, 0x7fffffff), random(0, 0x7fffffff))
        slot, version = host.set(id, name, value, FOR_EVER)
        self.generation = nil
    else
        slot, version = host.purge(id)
    end
    if not slot then
        return nil, version
    end
    host.clear(copies)
    return true
end

-- purge_answers({ key = "http://example.com/a?b" }), or `prefix`, or `tag`: the answers of routes that
-- this cache keeps under that URI, below it, or with that tag. No worker serves them when this returns.
function Cache:purge_answers(which)
    local kind, text
    if type(which) == "table" then
        kind, text = next(which)
    end
    if not ANSWERS[kind] or type(text) ~= "string" or next(which, kind) ~= nil then
        error("bad answers, table with one of key, prefix and tag expected", 2)
    end
    local _, id = ready(self)
    local slot, err = host.purge_answers(id, kind, text)
    if not slot then
        return nil, err
    end
    return true
end

-- What was counted since the process started, by name.
function Cache:counters()
    local _, id = ready(self)
    return host.counters(id)
end

-- By cache, then by name space ("" for none): what is opened twice keeps its copies once.
local opened = {}

-- open(name, opts): `opts.items` copies are kept instead of as many as configured; with
-- `opts.namespace` the keys, and `purge`, are this name space's own.
local function open(name, opts)
    if type(name) ~= "string" then
        error("bad cache name, string expected, got " .. type(name), 2)
    end
    local id, err = host.open(name)
    if not id then
        return nil, err
    end
    local namespace = opts and opts.namespace
    local spaces = opened[name]
    if not spaces then
        spaces = {}
        opened[name] = spaces
    end
    local key = namespace and "n" .. namespace or ""
    local cache = spaces[key]
    if not cache then
        cache = setmetatable({ name = name, items = opts and opts.items, namespace = namespace }, cache_meta)
        spaces[key] = cache
    end
    return cache
end

return { open = open }
