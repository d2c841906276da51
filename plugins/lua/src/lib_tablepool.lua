-- tablepool: tables to be used again, by tag. What is in the pool is empty.
local new, clear, setmetatable = table.new, table.clear, setmetatable

-- More than this per tag is left to the collector.
local MOST = 200
local pools = {}
local pool = {}

function pool.fetch(tag, narr, nrec)
    local free = pools[tag]
    if not free then
        free = { n = 0 }
        pools[tag] = free
    end
    local n = free.n
    if n > 0 then
        local t = free[n]
        free[n], free.n = nil, n - 1
        return t
    end
    return new(narr, nrec)
end

function pool.release(tag, t, noclear)
    if not t then
        error("object empty", 2)
    end
    local free = pools[tag]
    if not free then
        free = { n = 0 }
        pools[tag] = free
    end
    if not noclear then
        setmetatable(t, nil)
        clear(t)
    end
    if free.n < MOST then
        free.n = free.n + 1
        free[free.n] = t
    end
end

return pool
