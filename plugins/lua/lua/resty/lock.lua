-- resty.lock: a lock in a shared dict. Each holder's entry is a token of its own, compared and taken
-- away in one step: whoever outlived its exptime cannot release the next holder's lock. Who has to
-- wait stands in line, and is woken in its turn by the release, or by the end of the holder's lease:
-- `step`, `ratio` and `max_step` are taken, and nothing is polled.
local entry = require "phasor.entry"
local shared = ngx.shared
local now, update_time, random, worker_id, pid = ngx.now, ngx.update_time, math.random, ngx.worker.id, ngx.worker.pid
local min, setmetatable, tostring = math.min, setmetatable, tostring

local Lock = { _VERSION = "0.09" }
local meta = { __index = Lock }

local taken = 0

local function new_token()
    taken = taken + 1
    return pid() .. ":" .. (worker_id() or -1) .. ":" .. taken .. ":" .. random(0, 2147483647)
end

local function clock()
    update_time()
    return now()
end

function Lock.new(_, name, options)
    local dict = shared[name]
    if not dict then
        return nil, "dictionary not found"
    end
    options = options or {}
    local exptime, timeout, step = options.exptime or 30, options.timeout, options.step
    if timeout then
        timeout = min(timeout, exptime)
        step = step and min(step, timeout)
    end
    return setmetatable({
        dict = dict, exptime = exptime, timeout = timeout or 5, step = step or 0.001,
        ratio = options.ratio or 2, max_step = options.max_step or 0.5,
    }, meta)
end

-- An object that is garbage gives its lock up.
local function took(self, key, token)
    self.key, self.token, self.entry = key, token, entry.keep(self.dict, key, token)
end

local function gave(self)
    entry.forget(self.entry)
    self.key, self.token, self.entry = nil, nil, nil
end

function Lock:lock(key)
    if not key then
        return nil, "nil key"
    end
    if self.key then
        return nil, "locked"
    end
    key = tostring(key)
    local dict, exptime, timeout, token = self.dict, self.exptime, self.timeout, new_token()
    local ok, err = dict:add_in_turn(key, token, exptime, 0)
    if ok then
        took(self, key, token)
        return 0
    end
    if err ~= "timeout" or timeout <= 0 then
        return nil, err
    end
    local start = clock()
    ok, err = dict:add_in_turn(key, token, exptime, timeout)
    if not ok then
        return nil, err
    end
    took(self, key, token)
    return clock() - start
end

-- Gives the lock up; a lease that has ended is "unlocked", whoever holds the lock now.
function Lock:unlock()
    local key = self.key
    if not key then
        return nil, "unlocked"
    end
    local token = self.token
    gave(self)
    local ok, err = self.dict:cas(key, token, nil)
    if ok then
        return 1
    end
    return nil, err or "unlocked"
end

-- A new lease from now on, for as long as the lock is still ours.
function Lock:expire(time)
    local key = self.key
    if not key then
        return nil, "unlocked"
    end
    local ok, err = self.dict:cas(key, self.token, self.token, time or self.exptime)
    if ok then
        return true
    end
    gave(self)
    return nil, err or "unlocked"
end

return Lock
