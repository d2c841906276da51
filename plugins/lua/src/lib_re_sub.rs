//! `ngx.re.sub` and `gsub` with a replacement template: `$0 $1 ${1}`, and `$$` for a dollar.
#![expect(unsafe_code, reason = "the C API of Lua")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on the live state that Lua hands in"
)]

use crate::ffi::{self, State};
use crate::lib_re::{compile, exec, next_start, push_exec_error};
use crate::lib_re_pcre::{NOMATCH, Pattern};
use crate::lib_scratch::{Single, number, stringify};
use std::ffi::c_int;

/// A piece of a template: a range of its text, or a group.
#[derive(Clone, Copy)]
enum Piece {
    Text(usize, usize),
    Group(u32),
}

/// The pieces of the template in use, and the output. Static, since Lua's errors skip destructors;
/// nothing in the loop below calls back into Lua, so one of each is enough.
static PIECES: Single<Vec<Piece>> = Single::new(Vec::new());
static OUTPUT: Single<Vec<u8>> = Single::new(Vec::new());
/// A larger output buffer is given back after use.
const KEEP: usize = 1 << 20;

/// Splits a template; false when it has a lone `$`, an open brace or a named group.
fn parse(template: &[u8], pieces: &mut Vec<Piece>) -> bool {
    pieces.clear();
    let mut at = 0;
    while at < template.len() {
        let rest = &template[at..];
        let Some(dollar) = memchr::memchr(b'$', rest) else {
            pieces.push(Piece::Text(at, template.len()));
            break;
        };
        if dollar > 0 {
            pieces.push(Piece::Text(at, at + dollar));
        }
        at += dollar + 1;
        if template.get(at) == Some(&b'$') {
            pieces.push(Piece::Text(at, at + 1));
            at += 1;
            continue;
        }
        let braced = template.get(at) == Some(&b'{');
        at += usize::from(braced);
        let mut group = None;
        while let Some(digit) = template.get(at).filter(|b| b.is_ascii_digit()) {
            let so_far: u32 = group.unwrap_or(0);
            group = Some(
                so_far
                    .saturating_mul(10)
                    .saturating_add(u32::from(digit - b'0')),
            );
            at += 1;
        }
        let Some(group) = group else { return false };
        if braced && template.get(at) != Some(&b'}') {
            return false;
        }
        at += usize::from(braced);
        pieces.push(Piece::Group(group));
    }
    true
}

/// `(subject, regex, template, options, global)` → `new, count, err`
pub(crate) unsafe extern "C-unwind" fn replace(l: *mut State) -> c_int {
    ffi::lua_settop(l, 5);
    let subject = stringify(l, 1);
    let template = stringify(l, 3);
    let global = ffi::lua_toboolean(l, 5) != 0;
    let pattern = compile(l, 2, 4);
    if pattern.is_null() {
        return fail(l);
    }
    if !parse(template, &mut *PIECES.get()) {
        ffi::push_bytes(l, b"failed to compile the replacement template");
        return fail(l);
    }
    let output = &mut *OUTPUT.get();
    if output.capacity() > KEEP {
        *output = Vec::new();
    }
    output.clear();
    let (mut count, mut at, mut kept) = (0usize, 0, 0);
    loop {
        let code = exec(l, &*pattern, subject, at, at > 0);
        if code == NOMATCH {
            break;
        }
        if code < 0 {
            push_exec_error(l, code);
            return fail(l);
        }
        count += 1;
        let (from, to) = (*pattern).group(0);
        let most = template.len().max(to.saturating_sub(from)) * (*PIECES.get()).len();
        crate::alloc::demand_in(l, output, from.saturating_sub(kept) + most);
        ffi::tick(l, 1);
        // \K in a look-behind may put the start before what has been copied, or after the end.
        output.extend_from_slice(subject.get(kept..from).unwrap_or_default());
        expand(&*pattern, subject, template, &*PIECES.get(), output);
        kept = to;
        match next_start(&*pattern, subject) {
            Some(next) if global => at = next.max(at),
            _ => break,
        }
    }
    if count == 0 {
        ffi::lua_pushvalue(l, 1);
    } else {
        output.extend_from_slice(&subject[kept..]);
        ffi::push_bytes(l, output);
    }
    ffi::lua_pushnumber(l, number(count));
    2
}

/// Gives `nil, nil, err` for the text on the top.
unsafe fn fail(l: *mut State) -> c_int {
    ffi::lua_pushnil(l);
    ffi::lua_pushnil(l);
    ffi::lua_pushvalue(l, -3);
    3
}

unsafe fn expand(
    pattern: &Pattern,
    subject: &[u8],
    template: &[u8],
    pieces: &[Piece],
    output: &mut Vec<u8>,
) {
    for piece in pieces {
        match *piece {
            Piece::Text(from, to) => output.extend_from_slice(&template[from..to]),
            Piece::Group(group) if group <= pattern.groups => {
                let (from, to) = pattern.group(group);
                output.extend_from_slice(subject.get(from..to).unwrap_or_default());
            }
            Piece::Group(_) => {}
        }
    }
}
