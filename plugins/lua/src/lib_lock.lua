-- `phasor.lock`: locks of the configuration, in the process or in Redis. A guard gives its lock back when
-- it is released, when it is garbage, and when the request (or the timer) that got it has ended.
local host = ...
local acquire = host.acquire
local type, error, pairs, tostring, setmetatable = type, error, pairs, tostring, setmetatable

local OPTIONS = { hold = true, wait = true }

local Locks = {}
local meta = { __index = Locks }

-- acquire(name, opts): a guard, or nil and why. `opts.hold` and `opts.wait` are seconds; a wait of 0 is
-- one look.
function Locks:acquire(name, opts)
    local kind = type(name)
    if kind ~= "string" and kind ~= "number" then
        error("bad name, string expected, got " .. kind, 2)
    end
    local hold, wait
    if opts ~= nil then
        if type(opts) ~= "table" then
            error("bad options, table expected, got " .. type(opts), 2)
        end
        for option in pairs(opts) do
            if not OPTIONS[option] then
                error("unknown option \"" .. tostring(option) .. "\"", 2)
            end
        end
        hold, wait = opts.hold, opts.wait
    end
    local guard, err = acquire(self.table, name, hold, wait)
    return guard, err
end

-- open(name): the locks of `[lock.NAME]`, or nil and why.
local function open(name)
    if type(name) ~= "string" then
        error("bad name of locks, string expected, got " .. type(name), 2)
    end
    local table, err = host.open(name)
    if not table then
        return nil, err
    end
    return setmetatable({ name = name, table = table }, meta)
end

return { open = open }
