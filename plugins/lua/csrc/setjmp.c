/* The run-time half of LLVM's setjmp lowering for Wasm: what `setjmp` and `longjmp` become. */
#include <stddef.h>
#include <stdint.h>

struct argument { void *env; int value; };
struct buffer { void *invocation; uint32_t label; struct argument argument; };

void __wasm_setjmp(void *env, uint32_t label, void *invocation) {
  struct buffer *b = env;
  if (label == 0 || invocation == NULL) __builtin_trap();
  b->invocation = invocation;
  b->label = label;
}

uint32_t __wasm_setjmp_test(void *env, void *invocation) {
  struct buffer *b = env;
  if (b->label == 0 || invocation == NULL) __builtin_trap();
  return b->invocation == invocation ? b->label : 0;
}

_Noreturn void __wasm_longjmp(void *env, int value) {
  struct buffer *b = env;
  b->argument.env = env;
  b->argument.value = value ? value : 1;
  __builtin_wasm_throw(1, &b->argument);
}

/* LLVM 22 and later leave the definition of the tag to the run time. */
#if __clang_major__ >= 22
__asm__(".tagtype __c_longjmp i32\n.globl __c_longjmp\n__c_longjmp:\n");
#endif
