/* What the plugin adds to Lua in C: the seed of its string hash, and the count of work done in C. */
#define LUA_CORE
#include "lua.h"
#include "lstate.h"

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
