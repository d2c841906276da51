/* setjmp for Wasm: no libc here has it; LLVM's -wasm-enable-sjlj lowers these calls to setjmp.c. */
#ifndef PHASOR_SETJMP_H
#define PHASOR_SETJMP_H
typedef struct phasor_jmp_buf { unsigned long words[8]; } jmp_buf[1];
int setjmp(jmp_buf) __attribute__((__returns_twice__));
_Noreturn void longjmp(jmp_buf, int);
#define setjmp setjmp
#define _setjmp setjmp
#define _longjmp longjmp
#endif
