//! PCRE2 for `ngx.re`: one compiled pattern with its match data, and its limits.
//!
//! A pattern is kept in a Lua userdata, so that Lua's collector frees what the cache lets go.
#![expect(unsafe_code, reason = "the C API of PCRE2")]
#![expect(
    unsafe_op_in_unsafe_fn,
    reason = "every function works on a pattern that `compile` made"
)]

use crate::lib_scratch::Single;
use std::cell::Cell;
use std::ffi::{c_int, c_void};

#[repr(C)]
struct Opaque([u8; 0]);

unsafe extern "C" {
    fn pcre2_compile_8(
        pattern: *const u8,
        length: usize,
        options: u32,
        error: *mut c_int,
        offset: *mut usize,
        context: *mut Opaque,
    ) -> *mut Opaque;
    fn pcre2_code_free_8(code: *mut Opaque);
    fn pcre2_match_data_create_8(pairs: u32, general: *mut Opaque) -> *mut Opaque;
    fn pcre2_match_data_free_8(data: *mut Opaque);
    fn pcre2_match_context_create_8(general: *mut Opaque) -> *mut Opaque;
    fn pcre2_set_match_limit_8(context: *mut Opaque, limit: u32) -> c_int;
    fn pcre2_set_heap_limit_8(context: *mut Opaque, kib: u32) -> c_int;
    fn pcre2_match_8(
        code: *const Opaque,
        subject: *const u8,
        length: usize,
        start: usize,
        options: u32,
        data: *mut Opaque,
        context: *mut Opaque,
    ) -> c_int;
    fn pcre2_dfa_match_8(
        code: *const Opaque,
        subject: *const u8,
        length: usize,
        start: usize,
        options: u32,
        data: *mut Opaque,
        context: *mut Opaque,
        workspace: *mut c_int,
        size: usize,
    ) -> c_int;
    fn pcre2_get_match_data_heapframes_size_8(data: *mut Opaque) -> usize;
    fn pcre2_get_ovector_pointer_8(data: *mut Opaque) -> *mut usize;
    fn pcre2_pattern_info_8(code: *const Opaque, what: u32, to: *mut c_void) -> c_int;
    fn pcre2_get_error_message_8(code: c_int, buffer: *mut u8, size: usize) -> c_int;
}

pub(crate) const ALLOW_EMPTY_CLASS: u32 = 0x0000_0001;
pub(crate) const ALT_BSUX: u32 = 0x0000_0002;
pub(crate) const CASELESS: u32 = 0x0000_0008;
pub(crate) const DOTALL: u32 = 0x0000_0020;
pub(crate) const DUPNAMES: u32 = 0x0000_0040;
pub(crate) const EXTENDED: u32 = 0x0000_0080;
pub(crate) const MATCH_UNSET_BACKREF: u32 = 0x0000_0200;
pub(crate) const MULTILINE: u32 = 0x0000_0400;
pub(crate) const UTF: u32 = 0x0008_0000;
pub(crate) const ANCHORED: u32 = 0x8000_0000;
/// At match time: the subject has been checked.
pub(crate) const NO_UTF_CHECK: u32 = 0x4000_0000;
/// \C would leave the middle of a character behind as a position that is then trusted.
const NEVER_BACKSLASH_C: u32 = 0x0010_0000;

const INFO_CAPTURECOUNT: u32 = 4;
const INFO_NAMECOUNT: u32 = 17;
const INFO_NAMEENTRYSIZE: u32 = 18;
const INFO_NAMETABLE: u32 = 19;
const INFO_SIZE: u32 = 22;
/// What `exec` gives when nothing matched.
pub(crate) const NOMATCH: c_int = -1;
const NOMEMORY: c_int = -48;
/// A group that took no part in the match.
pub(crate) const UNSET: usize = usize::MAX;

/// Backtracking steps per match. PCRE2's own default, ten times as much, takes about a second.
const MATCH_LIMIT: u32 = 1_000_000;
/// Memory for backtracking, in KiB: a quarter of what a VM has by default would be too much.
const HEAP_LIMIT: u32 = 16 * 1024;
/// What a pattern keeps of it for its next match, in bytes.
const FRAMES_KEPT: usize = 64 << 10;
/// `lua-nginx-module`'s workspace for DFA matches, in integers.
const DFA_WORKSPACE: usize = 1000;
/// `lua-resty-core` cuts messages here.
const MESSAGE_LENGTH: usize = 127;

static CONTEXT: Single<*mut Opaque> = Single::new(std::ptr::null_mut());
static WORKSPACE: Single<[c_int; DFA_WORKSPACE]> = Single::new([0; DFA_WORKSPACE]);

/// A compiled pattern. Plain data: Lua owns its memory, `free` its contents.
#[repr(C)]
pub(crate) struct Pattern {
    code: *mut Opaque,
    data: Cell<*mut Opaque>,
    /// Bytes of backtracking that `data` keeps for the next match.
    frames: Cell<usize>,
    /// Bytes of the code.
    pub(crate) size: usize,
    names: *const u8,
    name_count: u32,
    name_size: u32,
    /// Number of groups; 0 with option `d`.
    pub(crate) groups: u32,
    /// Option `D`: names collect tables.
    pub(crate) duplicates: bool,
    /// Option `d`.
    pub(crate) dfa: bool,
    /// Option `u` or `U`.
    pub(crate) utf: bool,
}

/// How a pattern is to be compiled.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    pub(crate) bits: u32,
    pub(crate) dfa: bool,
    pub(crate) duplicates: bool,
}

impl Pattern {
    /// Compiles; the error is OpenResty's text.
    pub(crate) unsafe fn compile(source: &[u8], options: Options) -> Result<Self, Vec<u8>> {
        let (mut error, mut offset) = (0, 0);
        let utf = options.bits & UTF != 0;
        let bits = options.bits | if utf { NEVER_BACKSLASH_C } else { 0 };
        let (errors, offsets) = (&raw mut error, &raw mut offset);
        let code = pcre2_compile_8(
            source.as_ptr(),
            source.len(),
            bits,
            errors,
            offsets,
            std::ptr::null_mut(),
        );
        if code.is_null() {
            return Err(compile_error(source, error, offset));
        }
        let mut pattern = Self {
            code,
            data: Cell::new(std::ptr::null_mut()),
            frames: Cell::new(0),
            size: 0,
            names: std::ptr::null(),
            name_count: 0,
            name_size: 0,
            groups: 0,
            duplicates: options.duplicates,
            dfa: options.dfa,
            utf,
        };
        pcre2_pattern_info_8(code, INFO_CAPTURECOUNT, (&raw mut pattern.groups).cast());
        pcre2_pattern_info_8(code, INFO_NAMECOUNT, (&raw mut pattern.name_count).cast());
        pcre2_pattern_info_8(
            code,
            INFO_NAMEENTRYSIZE,
            (&raw mut pattern.name_size).cast(),
        );
        pcre2_pattern_info_8(code, INFO_NAMETABLE, (&raw mut pattern.names).cast());
        pcre2_pattern_info_8(code, INFO_SIZE, (&raw mut pattern.size).cast());
        if options.dfa {
            pattern.groups = 0;
        }
        let data = pcre2_match_data_create_8(pattern.groups + 1, std::ptr::null_mut());
        pattern.data.set(data);
        if data.is_null() {
            pcre2_code_free_8(code);
            return Err(b"no memory".to_vec());
        }
        crate::alloc::foreign(0, pattern.size);
        Ok(pattern)
    }

    /// Frees what PCRE2 holds; may be called twice.
    pub(crate) unsafe fn free(&mut self) {
        if !self.code.is_null() {
            pcre2_code_free_8(self.code);
            pcre2_match_data_free_8(self.data.get());
            crate::alloc::foreign(self.size, 0);
            crate::alloc::foreign(self.frames.get(), 0);
            self.code = std::ptr::null_mut();
        }
    }

    /// Matches from `start`: the number of groups set, at least 1, or PCRE2's error number.
    /// `checked` says that this subject has passed the UTF-8 check already.
    pub(crate) unsafe fn exec(&self, subject: &[u8], start: usize, checked: bool) -> c_int {
        let context = context();
        if context.is_null() || self.code.is_null() {
            return NOMEMORY;
        }
        let options = if checked { NO_UTF_CHECK } else { 0 };
        let (s, n) = (subject.as_ptr(), subject.len());
        if self.dfa {
            let workspace = WORKSPACE.get().cast();
            let found = pcre2_dfa_match_8(
                self.code,
                s,
                n,
                start,
                options,
                self.data.get(),
                context,
                workspace,
                DFA_WORKSPACE,
            );
            // 0: more matches than the one pair holds, which is the longest.
            return if found >= 0 { 1 } else { found };
        }
        let data = self.data.get();
        let found = pcre2_match_8(self.code, s, n, start, options, data, context);
        self.settle();
        found
    }

    /// Counts what a match leaves behind; where that is much, keeps the groups alone: PCRE2 would keep
    /// all for as long as the pattern is in the cache.
    unsafe fn settle(&self) {
        let data = self.data.get();
        let mut frames = pcre2_get_match_data_heapframes_size_8(data);
        if frames > FRAMES_KEPT {
            let fresh = pcre2_match_data_create_8(self.groups + 1, std::ptr::null_mut());
            if !fresh.is_null() {
                let (from, to) = (
                    pcre2_get_ovector_pointer_8(data),
                    pcre2_get_ovector_pointer_8(fresh),
                );
                std::ptr::copy_nonoverlapping(from, to, (self.groups as usize + 1) * 2);
                pcre2_match_data_free_8(data);
                self.data.set(fresh);
                frames = 0;
            }
        }
        crate::alloc::foreign(self.frames.replace(frames), frames);
    }

    /// Where group `n` of the last match lies; `UNSET` twice when it took no part.
    pub(crate) unsafe fn group(&self, n: u32) -> (usize, usize) {
        let pairs = pcre2_get_ovector_pointer_8(self.data.get());
        let at = n as usize * 2;
        (*pairs.add(at), *pairs.add(at + 1))
    }

    /// How many named groups there are.
    pub(crate) const fn name_count(&self) -> u32 {
        if self.dfa { 0 } else { self.name_count }
    }

    /// The `n`-th name, in PCRE2's order (the alphabet), and its group.
    pub(crate) unsafe fn name(&self, n: u32) -> (u32, &[u8]) {
        let entry = std::slice::from_raw_parts(
            self.names.add((n * self.name_size) as usize),
            self.name_size as usize,
        );
        let name = &entry[2..];
        let end = memchr::memchr(0, name).unwrap_or(name.len());
        (u32::from(entry[0]) << 8 | u32::from(entry[1]), &name[..end])
    }
}

/// The match context with our limits, made once.
unsafe fn context() -> *mut Opaque {
    let slot = CONTEXT.get();
    if (*slot).is_null() {
        let context = pcre2_match_context_create_8(std::ptr::null_mut());
        if !context.is_null() {
            pcre2_set_match_limit_8(context, MATCH_LIMIT);
            pcre2_set_heap_limit_8(context, HEAP_LIMIT);
        }
        *slot = context;
    }
    *slot
}

unsafe fn compile_error(source: &[u8], code: c_int, offset: usize) -> Vec<u8> {
    let mut text = [0u8; 128];
    pcre2_get_error_message_8(code, text.as_mut_ptr(), text.len());
    let end = memchr::memchr(0, &text).unwrap_or(text.len());
    let mut message = b"pcre2_compile() failed: ".to_vec();
    message.extend_from_slice(&text[..end]);
    message.extend_from_slice(b" in \"");
    message.extend_from_slice(source);
    message.push(b'"');
    if let Some(rest) = source.get(offset..)
        && !rest.is_empty()
    {
        message.extend_from_slice(b" at \"");
        message.extend_from_slice(rest);
        message.push(b'"');
    }
    message.truncate(MESSAGE_LENGTH);
    message
}
