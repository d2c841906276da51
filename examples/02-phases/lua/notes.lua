-- Notes of one request: which phase ran, and when. They live in ngx.ctx, so that no request sees
-- another's.
local notes = {}

function notes.add(phase)
    local ctx = ngx.ctx
    ngx.update_time()
    ctx.start = ctx.start or ngx.now()
    ctx.notes = ctx.notes or {}
    table.insert(ctx.notes, { phase = phase, passed = (ngx.now() - ctx.start) * 1e6 })
end

-- A line for each phase so far.
function notes.page()
    local lines = {}
    for place, note in ipairs(ngx.ctx.notes) do
        lines[place] = string.format("%-14s +%5d us\n", note.phase, note.passed)
    end
    return table.concat(lines)
end

-- The phases' names.
function notes.names()
    local names = {}
    for place, note in ipairs(ngx.ctx.notes or {}) do
        names[place] = note.phase
    end
    return table.concat(names, " ")
end

return notes
