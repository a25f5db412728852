// Of which sources this library was made: setup.py says it, mlmm/kernels/library.py compares.
#include <cstdint>

#ifndef MLMM_SOURCE_HASH
#define MLMM_SOURCE_HASH 0
#endif

extern "C" __attribute__((visibility("default"))) uint64_t mlmm_source_hash() { return MLMM_SOURCE_HASH; }
