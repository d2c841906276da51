/* PCRE2's build settings for the Lua plugin: 8-bit code units with Unicode, no JIT (Wasm has no
 * run-time code), and limits that keep one pattern from taking a worker. It stands in for the
 * file that PCRE2's own configure would write, and must come before upstream's in the search path. */
#ifndef PHASOR_PCRE2_CONFIG_H
#define PHASOR_PCRE2_CONFIG_H

#define HAVE_STDINT_H 1
#define HAVE_INTTYPES_H 1
#define HAVE_STDLIB_H 1
#define HAVE_STRING_H 1
#define HAVE_LIMITS_H 1
#define HAVE_MEMMOVE 1
#define STDC_HEADERS 1

#define SUPPORT_PCRE2_8 1
#define SUPPORT_UNICODE 1

/* Two bytes of link keep compiled patterns small and refuse those over 64 KB. */
#define LINK_SIZE 2
/* PCRE2's defaults; the plugin sets tighter ones in its match context. */
#define HEAP_LIMIT 20000000
#define MATCH_LIMIT 10000000
#define MATCH_LIMIT_DEPTH MATCH_LIMIT
/* The compiler recurses per parenthesis, on a Wasm stack that is not large. */
#define PARENS_NEST_LIMIT 250
#define MAX_NAME_SIZE 128
#define MAX_NAME_COUNT 10000
#define MAX_VARLOOKBEHIND 255
/* "\n" ends a line, as in nginx's PCRE; \R matches any Unicode line ending. */
#define NEWLINE_DEFAULT 2

#ifndef PCRE2_EXPORT
#define PCRE2_EXPORT
#endif

#endif
