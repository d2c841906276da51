-- resty.lock: a lock in a shared dict. Each holder's entry is a token of its own, compared and taken
-- away in one step: whoever outlived its exptime cannot release the next holder's lock. Who has to
-- wait is woken by the release, or by the end of the holder's lease: `step`, `ratio` and `max_step`
-- are taken, and nothing is polled.
local shared = ngx.shared
local now, update_time, random, worker_id, pid = ngx.now, ngx.update_time, math.random, ngx.worker.id, ngx.worker.pid
local min, setmetatable, tostring, type = math.min, setmetatable, tostring, type

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

local function elapsed(start)
    return start and clock() - start or 0
end

function Lock.new(_, name, options)
    local dict = shared[name]
    if not dict then
        return nil, "dictionary not found"
    end
    options = options or {}
    local exptime = options.exptime or 30
    local timeout = options.timeout or 5
    local step = options.step or 0.001
    timeout = min(timeout, exptime)
    step = min(step, timeout)
    return setmetatable({
        dict = dict, exptime = exptime, timeout = timeout, step = step,
        ratio = options.ratio or 2, max_step = options.max_step or 0.5,
    }, meta)
end

function Lock:lock(key)
    if not key then
        return nil, "nil key"
    end
    if self.key then
        return nil, "locked"
    end
    key = tostring(key)
    local dict, exptime, token = self.dict, self.exptime, new_token()
    local start
    while true do
        local ok, err = dict:add(key, token, exptime)
        if ok then
            self.key, self.token = key, token
            return elapsed(start)
        end
        if err ~= "exists" then
            return nil, err
        end
        start = start or clock()
        local left = self.timeout - elapsed(start)
        if left < 0.001 then
            return nil, "timeout"
        end
        local holder = dict:get(key)
        if holder then
            local _, wrong = dict:wait(key, holder, left)
            if wrong and wrong ~= "timeout" then
                return nil, wrong
            end
        end
    end
end

-- Gives the lock up; a lease that has ended is "unlocked", whoever holds the lock now.
function Lock:unlock()
    local key = self.key
    if not key then
        return nil, "unlocked"
    end
    local token = self.token
    self.key, self.token = nil, nil
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
    if type(time) ~= "number" then
        time = self.exptime
    end
    local ok, err = self.dict:cas(key, self.token, self.token, time)
    if ok then
        return true
    end
    self.key, self.token = nil, nil
    return nil, err or "unlocked"
end

return Lock
