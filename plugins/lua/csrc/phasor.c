/* What the plugin adds to Lua in C: the seed of its string hash, the count of work done in C, and the
   text of a number. */
#define LUA_CORE
#include <math.h>
#include <stdio.h>
#include "lua.h"
#include "lobject.h"
#include "lstate.h"
#include "ltable.h"

/* Set before a state is opened. */
unsigned int phasor_seed = 0x5bd1e995u;

/* How much work a C loop may do between two looks at the clock (about a millisecond). */
#define WORK_PER_CHECK 200000

long phasor_work = WORK_PER_CHECK;

/* Kept by lua_resume. */
lua_State *phasor_running = NULL;

/* In Rust: raises when the running handler's CPU budget is spent. */
void phasor_check_budget (lua_State *L);

void phasor_tick (lua_State *L, size_t n) {
  phasor_work -= (long)n + 1;
  if (phasor_work <= 0) {
    phasor_work = WORK_PER_CHECK;
    phasor_check_budget(L);
  }
}

/* Where no error can be raised: the count hook comes before the next instruction. */
void phasor_hurry (void) {
  phasor_work = WORK_PER_CHECK;
  if (phasor_running != NULL && phasor_running->hook != NULL)
    phasor_running->hookcount = 1;
}

/* Of whole numbers `%.14g` writes no more than their digits while they have at most 14 of them: those are
   most, and need no printf. Returns the length. */
int phasor_number2str (char *s, double n) {
  char digits[16];
  int count = 0, length = 0;
  unsigned long long rest;
  if (n != n)
    return sprintf(s, "nan");
  if (!(fabs(n) < 1e14) || n != floor(n) || (n == 0 && signbit(n)))
    return sprintf(s, LUA_NUMBER_FMT, n);
  rest = (unsigned long long)fabs(n);
  do {
    digits[count++] = (char)('0' + rest % 10);
    rest /= 10;
  } while (rest != 0);
  if (n < 0)
    s[length++] = '-';
  while (count > 0)
    s[length++] = digits[--count];
  s[length] = '\0';
  return length;
}

/* What stands in place 1 of the table that is the first argument, if it is a userdata with this metatable.
   Methods of sockets ask with each call. */
void *phasor_object (lua_State *L, const void *metatable) {
  const TValue *o = L->ci->func + 1;
  if (o >= L->top || !ttistable(o)) return NULL;
  o = luaH_getint(hvalue(o), 1);
  if (!ttisuserdata(o) || uvalue(o)->metatable != metatable) return NULL;
  return rawuvalue(o) + 1;
}

/* As above of the first argument itself. */
void *phasor_self (lua_State *L, const void *metatable) {
  const TValue *o = L->ci->func + 1;
  if (o >= L->top || !ttisuserdata(o) || uvalue(o)->metatable != metatable) return NULL;
  return rawuvalue(o) + 1;
}
