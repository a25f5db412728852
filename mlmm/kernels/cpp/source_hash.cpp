// Of which sources this library was made: setup.py says it, mlmm/kernel_library.py compares.

#include <cstdint>

#include "export.h"

#ifndef MLMM_SOURCE_HASH
#define MLMM_SOURCE_HASH 0
#endif

EXPORT uint64_t mlmm_source_hash() { return MLMM_SOURCE_HASH; }
