// The C interface to a BlendForce: its arrays by name.
#include <algorithm>

#include "blend_force.h"
#include "guarded.h"
#include "openmm/OpenMMException.h"

using namespace OpenMM;
using namespace mlmm;

namespace {

BlendForce& blend(Force* force) { return dynamic_cast<BlendForce&>(*force); }

template <class T>
void take(const std::map<std::string, std::vector<T>>& arrays, const char* name, int64_t* n, T* values) {
    const auto place = arrays.find(name);
    if (place == arrays.end())
        throw OpenMMException("Expected an array called '" + std::string(name) + "', but the force has none. Look at "
                              "its XML.");
    *n = place->second.size();
    if (values) std::copy(place->second.begin(), place->second.end(), values);
}

}  // namespace

EXPORT int mlmm_blend_is(Force* force) { return dynamic_cast<BlendForce*>(force) != nullptr; }

EXPORT const char* mlmm_blend_kind(Force* force) { return blend(force).kind.c_str(); }

EXPORT int mlmm_blend_set_integers(Force* force, const char* name, int64_t n, const int32_t* values) {
    return guarded([&] { blend(force).integers[name].assign(values, values + n); });
}

EXPORT int mlmm_blend_set_numbers(Force* force, const char* name, int64_t n, const double* values) {
    return guarded([&] { blend(force).numbers[name].assign(values, values + n); });
}

// How many there are, and themselves where there is room for them.
EXPORT int mlmm_blend_get_integers(Force* force, const char* name, int64_t* n, int32_t* values) {
    return guarded([&] { take(blend(force).integers, name, n, values); });
}

EXPORT int mlmm_blend_get_numbers(Force* force, const char* name, int64_t* n, double* values) {
    return guarded([&] { take(blend(force).numbers, name, n, values); });
}

// members, 1 if periodic, 1 if in double precision, threads
EXPORT int mlmm_blend_sizes(Force* force, int64_t* sizes) {
    return guarded([&] {
        const BlendForce& own = blend(force);
        sizes[0] = own.committee->members, sizes[1] = own.periodic, sizes[2] = own.twofold, sizes[3] = own.threads;
    });
}
