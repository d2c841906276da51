-- `phasor.redis`: a Redis of the configuration, any command as a method.
local host = ...
local command, pipeline, eval, subscribe, next_message =
    host.command, host.pipeline, host.eval, host.subscribe, host.next_message

local Subscription = {}
Subscription.__index = Subscription

-- The next message: { channel =, payload =, pattern = }, or nil and why the subscription has ended.
function Subscription:next()
    return next_message(self.handle)
end

local Redis = {}

-- Several commands in one round trip; a failed one is { false, error } in the list.
function Redis:pipeline(commands)
    return pipeline(self.name, commands, false)
end

-- Several commands between MULTI and EXEC.
function Redis:transaction(commands)
    return pipeline(self.name, commands, true)
end

-- eval(script, keys, arguments): by digest, and by text where the server does not have it.
function Redis:eval(script, keys, arguments)
    return eval(self.name, script, keys or {}, arguments or {})
end

function Redis:subscribe(...)
    local handle, err = subscribe(self.name, { ... }, {})
    if not handle then return nil, err end
    return setmetatable({ handle = handle }, Subscription)
end

function Redis:psubscribe(...)
    local handle, err = subscribe(self.name, {}, { ... })
    if not handle then return nil, err end
    return setmetatable({ handle = handle }, Subscription)
end

setmetatable(Redis, {
    __index = function(methods, name)
        if type(name) ~= "string" then return nil end
        local verb = name:upper()
        local function method(self, ...)
            return command(self.name, verb, ...)
        end
        methods[name] = method
        return method
    end,
})

local meta = { __index = Redis }

return {
    new = function(name)
        return setmetatable({ name = name or "main" }, meta)
    end,
}
