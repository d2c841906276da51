-- ngx.re.sub and ngx.re.gsub: a replacement function is called from Lua, so that it may yield.
local re, replace, step = ...
local type, tostring = type, tostring
local sub, concat = string.sub, table.concat

local function by_function(subject, regex, f, options, global)
    subject = tostring(subject)
    local parts, n, count = {}, 0, 0
    local at, kept = 0, 0
    while at do
        local captures, from, to, following = step(subject, regex, options, at)
        if not captures then
            if from then
                return nil, nil, from
            end
            break
        end
        count = count + 1
        parts[n + 1] = sub(subject, kept + 1, from)
        parts[n + 2] = tostring(f(captures))
        n = n + 2
        kept = to
        at = global and following
    end
    if count == 0 then
        return subject, 0
    end
    parts[n + 1] = sub(subject, kept + 1)
    return concat(parts), count
end

function re.sub(subject, regex, replacement, options)
    if type(replacement) == "function" then
        return by_function(subject, regex, replacement, options, false)
    end
    return replace(subject, regex, replacement, options, false)
end

function re.gsub(subject, regex, replacement, options)
    if type(replacement) == "function" then
        return by_function(subject, regex, replacement, options, true)
    end
    return replace(subject, regex, replacement, options, true)
end
