-- `phasor.http`: requests by the host's HTTP client.
local host = ...
local host_fetch, host_open, host_read, host_close = host.fetch, host.open, host.read, host.close
local host_upload, host_write, host_finish = host.upload, host.write, host.finish

-- Names in any case, `_` for `-`, as ngx_lua's tables of headers have them.
local header_meta = {
    __index = function(headers, name)
        if type(name) ~= "string" then return nil end
        return rawget(headers, (name:lower():gsub("_", "-")))
    end,
}

local function headers_of(list)
    local headers = {}
    for i = 1, #list, 2 do
        local name, value = list[i], list[i + 1]
        local had = headers[name]
        if had == nil then
            headers[name] = value
        elseif type(had) == "table" then
            had[#had + 1] = value
        else
            headers[name] = { had, value }
        end
    end
    return setmetatable(headers, header_meta)
end

local function flat(headers)
    local list = {}
    for name, value in pairs(headers or {}) do
        for _, one in ipairs(type(value) == "table" and value or { value }) do
            list[#list + 1] = name
            list[#list + 1] = one
        end
    end
    return list
end

local Answer = {}
Answer.__index = Answer

-- The next piece of the body; nil at its end, nil and why when it breaks.
function Answer:read(timeout)
    return host_read(self.handle, timeout or 0)
end

-- What is left of the body, at most `limit` bytes (16 MiB when left out).
function Answer:read_all(timeout, limit)
    local pieces, length = {}, 0
    limit = limit or 16 * 1024 * 1024
    while true do
        local piece, err = self:read(timeout)
        if not piece then
            if err then return nil, err end
            return table.concat(pieces)
        end
        length = length + #piece
        if length > limit then
            self:close()
            return nil, "the body is longer than " .. limit .. " bytes"
        end
        pieces[#pieces + 1] = piece
    end
end

-- Ends the request; what has not come is not waited for.
function Answer:close()
    host_close(self.handle)
end

local function answer(status, headers, handle)
    if not status then return nil, headers end
    return setmetatable({ status = status, headers = headers_of(headers), handle = handle }, Answer)
end

-- Sends what `body` gives, piece by piece, until it gives nil.
local function send(method, url, options, body)
    local upload, err = host_upload(method, url, flat(options.headers), "")
    if not upload then return nil, err end
    local timeout = options.timeout or 0
    for piece in body do
        local more
        more, err = host_write(upload, piece, timeout)
        if err then return nil, err end
        -- The server has answered with an error before it had all, or is gone.
        if not more then break end
    end
    return answer(host_finish(upload, timeout))
end

local M = {}

-- open(url, { method =, headers =, body =, timeout = }): an answer whose body comes as it is read.
-- `body` is a string, or a function that gives the next piece and nil at the end.
function M.open(url, options)
    options = options or {}
    local body = options.body or ""
    local method = options.method or "GET"
    if type(body) == "function" then return send(method, url, options, body) end
    return answer(host_open(method, url, flat(options.headers), body, options.timeout or 0))
end

-- fetch(url, { …, limit = }): the whole answer, with its `body`.
function M.fetch(url, options)
    options = options or {}
    local limit = options.limit or 0
    if type(options.body) == "function" then
        local res, err = M.open(url, options)
        if not res then return nil, err end
        res.body, err = res:read_all(options.timeout, options.limit)
        if not res.body then return nil, err end
        res.handle = nil
        return res
    end
    local status, headers, body = host_fetch(options.method or "GET", url, flat(options.headers),
        options.body or "", options.timeout or 0, limit)
    if not status then return nil, headers end
    return { status = status, headers = headers_of(headers), body = body }
end

return M
