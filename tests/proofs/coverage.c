/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Coverage of modules compiled with gcc, for a fuzzer that only knows clang's.
 *
 * gcc calls __sanitizer_cov_trace_pc() at each basic block, which libFuzzer
 * ignores. Here it counts in a table by the caller's address, and the table is
 * registered with libFuzzer as the counters of a module. Comparisons are passed
 * on once libFuzzer is there. To be preloaded.
 */
#include <stddef.h>
#include <stdint.h>

#define N_COUNTERS 65536

static uint8_t counters[N_COUNTERS];
static uintptr_t places[2 * N_COUNTERS];

static void (*next_cmp1)(uint8_t, uint8_t), (*next_const_cmp1)(uint8_t, uint8_t);
static void (*next_cmp2)(uint16_t, uint16_t), (*next_const_cmp2)(uint16_t, uint16_t);
static void (*next_cmp4)(uint32_t, uint32_t), (*next_const_cmp4)(uint32_t, uint32_t);
static void (*next_cmp8)(uint64_t, uint64_t), (*next_const_cmp8)(uint64_t, uint64_t);
static void (*next_switch)(uint64_t, uint64_t *);

void __sanitizer_cov_trace_pc(void)
{
    uintptr_t pc = (uintptr_t)__builtin_return_address(0);
    uintptr_t i = (pc ^ pc >> 16) & (N_COUNTERS - 1);
    counters[i] += counters[i] < 255;
    places[2 * i] = pc;
}

#define FORWARD(name, type) \
    void __sanitizer_cov_trace_##name(type a, type b) \
    { \
        if (next_##name) \
            next_##name(a, b); \
    }
FORWARD(cmp1, uint8_t)
FORWARD(cmp2, uint16_t)
FORWARD(cmp4, uint32_t)
FORWARD(cmp8, uint64_t)
FORWARD(const_cmp1, uint8_t)
FORWARD(const_cmp2, uint16_t)
FORWARD(const_cmp4, uint32_t)
FORWARD(const_cmp8, uint64_t)

/* gcc's own; libFuzzer has no such thing. */
void __sanitizer_cov_trace_cmpf(float a, float b) { (void)a; (void)b; }
void __sanitizer_cov_trace_cmpd(double a, double b) { (void)a; (void)b; }

void __sanitizer_cov_trace_switch(uint64_t value, uint64_t *cases)
{
    if (next_switch)
        next_switch(value, cases);
}

void bridge_connect(void **functions)
{
    void (*counters_init)(uint8_t *, uint8_t *) = functions[0];
    void (*places_init)(const uintptr_t *, const uintptr_t *) = functions[1];
    counters_init(counters, counters + N_COUNTERS);
    places_init(places, places + 2 * N_COUNTERS);
    next_cmp1 = functions[2];
    next_cmp2 = functions[3];
    next_cmp4 = functions[4];
    next_cmp8 = functions[5];
    next_const_cmp1 = functions[6];
    next_const_cmp2 = functions[7];
    next_const_cmp4 = functions[8];
    next_const_cmp8 = functions[9];
    next_switch = functions[10];
}

/* Basic blocks reached so far. */
size_t bridge_reached(void)
{
    size_t n = 0;
    for (size_t i = 0; i < N_COUNTERS; i++)
        n += places[2 * i] != 0;
    return n;
}
