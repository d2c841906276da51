-- resty.lrucache: a cache that drops the entry used longest ago. Entries are nodes of a ring;
-- `head` is no entry: `head.next` was used last, `head.prev` longest ago.
local now = ngx.now
local setmetatable, error, type = setmetatable, error, type

local cache = {}
local methods = { __index = cache }

local function unlink(node)
    node.prev.next = node.next
    node.next.prev = node.prev
end

local function link(head, node)
    local first = head.next
    node.prev, node.next = head, first
    head.next, first.prev = node, node
end

local function clear(self)
    local head = {}
    head.next, head.prev = head, head
    self.head, self.nodes, self.used = head, {}, 0
end

function cache.new(size)
    if type(size) ~= "number" or size < 1 then
        return nil, "size too small"
    end
    local self = setmetatable({ size = size }, methods)
    clear(self)
    return self
end

function cache:get(key)
    local node = self.nodes[key]
    if not node then
        return nil
    end
    unlink(node)
    link(self.head, node)
    if node.expires and node.expires < now() then
        return nil, node.value, node.flags
    end
    return node.value, nil, node.flags
end

function cache:set(key, value, ttl, flags)
    local node = self.nodes[key]
    if node then
        unlink(node)
    elseif self.used >= self.size then
        node = self.head.prev
        unlink(node)
        self.nodes[node.key] = nil
        self.nodes[key] = node
    else
        node = {}
        self.nodes[key] = node
        self.used = self.used + 1
    end
    node.key, node.value = key, value
    node.expires = ttl and now() + ttl or nil
    if type(flags) ~= "number" or flags < 0 then
        flags = 0
    end
    node.flags = flags
    link(self.head, node)
end

function cache:delete(key)
    local node = self.nodes[key]
    if not node then
        return false
    end
    unlink(node)
    self.nodes[key] = nil
    self.used = self.used - 1
    return true
end

function cache:count()
    return self.used
end

function cache:capacity()
    return self.size
end

function cache:get_keys(max, res)
    if not max or max == 0 then
        max = self.used
    end
    local keys, n = res or {}, 0
    local node = self.head.next
    while node ~= self.head and n < max do
        n = n + 1
        keys[n] = node.key
        node = node.next
    end
    if res then
        keys[n + 1] = nil
    end
    return keys
end

function cache:flush_all()
    clear(self)
end

return cache
