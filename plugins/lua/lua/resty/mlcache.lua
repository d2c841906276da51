-- resty.mlcache: the interface of lua-resty-mlcache on `phasor.cache`. The second level is the cache
-- `[cache.SHM]`, or, where there is none, one as large as the shared dict `[shared.SHM]`. All workers
-- see a change before the call that made it returns, so nothing has to be polled; an `ipc` of the
-- user's own is told all the same.
local cache = require "phasor.cache"

local type, error, pcall, xpcall, tostring, setmetatable, ceil =
    type, error, pcall, xpcall, tostring, setmetatable, math.ceil
local traceback, log, WARN = debug.traceback, ngx.log, ngx.WARN
local spawn, wait = ngx.thread.spawn, ngx.thread.wait

-- How long past its time a value is there to be peeked at, or resurrected, if there is room.
local STALE = 86400
local STORABLE = { number = true, boolean = true, string = true, table = true, ["nil"] = true }

local Cache = { _VERSION = "2.7.0" }
local meta = { __index = Cache }

local function check_type(opts, name, kind, level)
    local value = opts[name]
    if value ~= nil and type(value) ~= kind then
        error("opts." .. name .. " must be a " .. kind, level + 1)
    end
end

local function check_number(opts, name, least, level)
    check_type(opts, name, "number", level + 1)
    if opts[name] and opts[name] < least then
        error("opts." .. name .. " must be >= " .. least, level + 1)
    end
end

-- What a single call may say, too.
local function check_times(opts, level)
    if type(opts) ~= "table" then
        error("opts must be a table", level + 1)
    end
    check_number(opts, "ttl", 0, level + 1)
    check_number(opts, "neg_ttl", 0, level + 1)
    check_number(opts, "resurrect_ttl", 0, level + 1)
    check_type(opts, "l1_serializer", "function", level + 1)
    check_number(opts, "shm_set_tries", 1, level + 1)
    check_type(opts, "skip_callback", "boolean", level + 1)
end

local function check_ipc(opts)
    if opts.ipc_shm then
        error("cannot specify both of opts.ipc_shm and opts.ipc", 4)
    end
    if type(opts.ipc) ~= "table" then
        error("opts.ipc must be a table", 4)
    end
    for _, name in ipairs { "register_listeners", "broadcast" } do
        if type(opts.ipc[name]) ~= "function" then
            error("opts.ipc." .. name .. " must be a function", 4)
        end
    end
    if opts.ipc.poll ~= nil and type(opts.ipc.poll) ~= "function" then
        error("opts.ipc.poll must be a function", 4)
    end
end

local function check_new(opts)
    if type(opts) ~= "table" then
        error("opts must be a table", 3)
    end
    check_times(opts, 3)
    check_type(opts, "lru_size", "number", 3)
    check_type(opts, "resty_lock_opts", "table", 3)
    check_type(opts, "ipc_shm", "string", 3)
    if opts.ipc ~= nil then
        check_ipc(opts)
    end
    check_type(opts, "shm_miss", "string", 3)
    check_type(opts, "shm_locks", "string", 3)
end

local function listen(self, ipc)
    self.events = {
        invalidation = {
            channel = "mlcache:invalidations:" .. self.name,
            handler = function(key)
                self.cache:delete(key)
            end,
        },
        purge = {
            channel = "mlcache:purge:" .. self.name,
            handler = function()
                self.cache:purge()
            end,
        },
    }
    local ok, err = ipc.register_listeners(self.events)
    if not ok and err ~= nil then
        return nil, "failed to initialize custom IPC (opts.ipc.register_listeners returned an error): " .. err
    end
    self.broadcast, self.poll = ipc.broadcast, ipc.poll
    return true
end

function Cache.new(name, shm, opts)
    if type(name) ~= "string" then
        error("name must be a string", 2)
    end
    if type(shm) ~= "string" then
        error("shm must be a string", 2)
    end
    opts = opts == nil and {} or opts
    check_new(opts)
    local size = opts.lru_size or 100
    local level2 = cache.open(shm, { namespace = name, items = size })
    if not level2 then
        return nil, "no such lua_shared_dict: " .. shm
    end
    for _, field in ipairs { "shm_miss", "shm_locks" } do
        local other = opts[field]
        if other and not (ngx.shared[other] or cache.open(other)) then
            return nil, "no such lua_shared_dict for opts." .. field .. ": " .. other
        end
    end
    local locks = opts.resty_lock_opts
    local self = setmetatable({
        name = name,
        shm = shm,
        cache = level2,
        ttl = opts.ttl or 30,
        neg_ttl = opts.neg_ttl or 5,
        resurrect_ttl = opts.resurrect_ttl,
        l1_serializer = opts.l1_serializer,
        skip_callback = opts.skip_callback or false,
        wait = locks and locks.timeout or 5,
    }, meta)
    if opts.ipc then
        local ok, err = listen(self, opts.ipc)
        if not ok then
            return nil, err
        end
    end
    return self
end

-- What this VM keeps of a value: what the serializer makes of it.
local function shape_of(serializer)
    return serializer and function(value)
        local ok, made, err = pcall(serializer, value)
        if not ok then
            return nil, "l1_serializer threw an error: " .. tostring(made)
        end
        if err then
            return nil, err
        end
        if made == nil then
            return nil, "l1_serializer returned a nil value"
        end
        return made
    end
end

local function times(self, opts)
    opts = opts or {}
    local skip = opts.skip_callback
    if skip == nil then
        skip = self.skip_callback
    end
    local resurrect = opts.resurrect_ttl or self.resurrect_ttl
    return {
        ttl = opts.ttl or self.ttl,
        negative_ttl = opts.neg_ttl or self.neg_ttl,
        stale = STALE,
        retry = resurrect,
        wait = self.wait,
    }, resurrect, shape_of(opts.l1_serializer or self.l1_serializer), skip
end

local function failed(flight, value, err, resurrect)
    err = tostring(err)
    if not resurrect then
        flight:leave()
        return value, err
    end
    local served, old = flight:fail(err)
    if not served then
        return value, err
    end
    log(WARN, "callback returned an error (", err, ") but stale value found in shm will be resurrected for ",
        resurrect, "s (resurrect_ttl)")
    if old ~= nil and flight.shape then
        local why
        old, why = flight.shape(old)
        if why then
            log(WARN, "could not resurrect stale data (", why, ")")
        end
    end
    return old, nil, 4
end

local function land(flight, resurrect, ok, value, err, ttl)
    if not ok then
        flight:leave()
        return nil, "callback threw an error: " .. tostring(value)
    end
    if err then
        return failed(flight, value, err, resurrect)
    end
    if type(ttl) == "number" and ttl < 0 then
        flight:pass(STORABLE[type(value)] and value or nil)
        return value, nil, 3
    end
    if not STORABLE[type(value)] then
        flight:leave()
        error("cannot cache value of type " .. type(value), 0)
    end
    local kept, wrong, lost = flight:fill(value, type(ttl) == "number" and ttl or nil)
    if wrong then
        return nil, wrong
    end
    if lost and lost ~= "lost" then
        log(WARN, "could not write to lua_shared_dict: ", lost)
    end
    return kept, nil, 3
end

local function fetch(self, key, opts, callback, arg, ...)
    local wanted, resurrect, shape, skip = times(self, opts)
    if skip or callback == nil then
        -- Who brings nothing need not wait for who does.
        callback, wanted.wait = nil, 0
    end
    local flight, value, err, level, stale = self.cache:find(key, wanted, false, shape)
    if flight and not callback then
        flight:leave()
        flight, err = nil, "timeout"
    end
    if flight then
        return land(flight, resurrect, xpcall(callback, traceback, arg, ...))
    end
    if err == "timeout" and not callback then
        return nil, nil, -1
    end
    if err == "timeout" or stale and level ~= "instance" and not resurrect then
        return nil, "could not acquire callback lock: timeout"
    elseif err then
        return nil, err
    end
    return value, nil, level == "instance" and 1 or stale and 4 or 2
end

function Cache:get(key, opts, callback, ...)
    if type(key) ~= "string" then
        error("key must be a string", 2)
    end
    if opts ~= nil then
        check_times(opts, 2)
    end
    if callback ~= nil and type(callback) ~= "function" then
        error("callback must be a function", 2)
    end
    return fetch(self, key, opts, callback, ...)
end

local Bulk = {}
Bulk.__index = Bulk

function Cache.new_bulk(operations)
    local bulk = table.new((operations or 2) * 4, 1)
    bulk.n = 0
    return setmetatable(bulk, Bulk)
end

function Bulk:add(key, opts, callback, arg)
    local at = self.n * 4
    self[at + 1], self[at + 2], self[at + 3], self[at + 4] = key, opts, callback, arg
    self.n = self.n + 1
end

local function next_result(results, i)
    local at = i * 3
    if at >= results.n then
        return
    end
    return i + 1, results[at + 1], results[at + 2], results[at + 3]
end

function Cache.each_bulk_res(results)
    if not results.n then
        error("res must have res.n field; is this a get_bulk() result?", 2)
    end
    return next_result, results, 0
end

local function check_bulk(bulk, opts)
    if type(bulk) ~= "table" then
        error("bulk must be a table", 3)
    end
    if not bulk.n then
        error("bulk must have n field", 3)
    end
    if opts then
        if type(opts) ~= "table" then
            error("opts must be a table", 3)
        end
        check_type(opts, "concurrency", "number", 3)
        if opts.concurrency and opts.concurrency <= 0 then
            error("opts.concurrency must be > 0", 3)
        end
        check_type(opts, "skip_callback", "boolean", 3)
    end
    for i = 1, bulk.n * 4, 4 do
        local operation = ceil(i / 4)
        if type(bulk[i]) ~= "string" then
            error("key at index " .. i .. " must be a string for operation " .. operation
                .. " (got " .. type(bulk[i]) .. ")", 3)
        end
        local callback = bulk[i + 2]
        if callback ~= nil and type(callback) ~= "function" then
            error("callback at index " .. i + 2 .. " must be a function for operation " .. operation
                .. " (got " .. type(callback) .. ")", 3)
        end
        if bulk[i + 1] ~= nil then
            local ok, err = pcall(check_times, bulk[i + 1], 0)
            if not ok then
                err = tostring(err):gsub("^[^ ]*:%d+: ", "")
                error("options at index " .. i + 1 .. " for operation " .. operation .. " are invalid: " .. err, 3)
            end
        end
    end
end

function Cache:get_bulk(bulk, opts)
    check_bulk(bulk, opts)
    local results, at = { n = bulk.n * 3 }, 0
    local skip = opts and opts.skip_callback
    local function work()
        while at < bulk.n do
            local from, to = at * 4, at * 3
            at = at + 1
            local own = bulk[from + 2]
            if skip ~= nil then
                own = setmetatable({ skip_callback = skip }, { __index = own })
            end
            results[to + 1], results[to + 2], results[to + 3] =
                fetch(self, bulk[from + 1], own, bulk[from + 3], bulk[from + 4])
        end
    end
    local threads = {}
    for i = 2, math.min(opts and opts.concurrency or 3, bulk.n) do
        threads[#threads + 1] = spawn(work)
    end
    work()
    for i = 1, #threads do
        local ok, err = wait(threads[i])
        if not ok then
            log(ngx.ERR, "failed to wait for thread number ", i, ": ", err)
        end
    end
    return results
end

function Cache:peek(key, stale)
    if type(key) ~= "string" then
        error("key must be a string", 2)
    end
    local there, value, left, went_stale = self.cache:peek(key, stale)
    if there == nil then
        return nil, value
    elseif not there then
        return nil
    end
    return left or 0, nil, value, went_stale or nil
end

local function tell(self, event, data, what)
    if not self.broadcast then
        return true
    end
    local _, err = self.broadcast(self.events[event].channel, data)
    if err then
        return nil, "could not broadcast " .. what .. ": " .. err
    end
    return true
end

function Cache:set(key, opts, value)
    if type(key) ~= "string" then
        error("key must be a string", 2)
    end
    if opts ~= nil then
        check_times(opts, 2)
    end
    if not STORABLE[type(value)] then
        error("cannot cache value of type " .. type(value), 2)
    end
    local wanted, _, shape = times(self, opts)
    local ok, err = self.cache:set(key, value, {
        ttl = wanted.ttl, negative_ttl = wanted.negative_ttl, stale = STALE,
    }, shape)
    if not ok then
        if err:find("longer than", 1, true) then
            err = "could not write to lua_shared_dict '" .. self.shm .. "': no memory"
        end
        return nil, err
    end
    return tell(self, "invalidation", key, "update")
end

function Cache:delete(key)
    if type(key) ~= "string" then
        error("key must be a string", 2)
    end
    local ok, err = self.cache:delete(key)
    if not ok then
        return nil, "could not delete from shm: " .. err
    end
    return tell(self, "invalidation", key, "deletion")
end

-- What has expired is out of reach in any case: `flush_expired` changes nothing.
function Cache:purge()
    local ok, err = self.cache:purge()
    if not ok then
        return nil, err
    end
    return tell(self, "purge", "", "purge")
end

function Cache:update(timeout)
    if not self.poll then
        return true
    end
    local _, err = self.poll(timeout)
    if err then
        return nil, "could not poll ipc events: " .. err
    end
    return true
end

return Cache
