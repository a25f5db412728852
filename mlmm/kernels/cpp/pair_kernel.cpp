// Force-field pairs on the processor behind a plain C interface; loaded by mlmm/kernels/torch_pairs.py,
// mlmm/kernels/direct_pairs.py and mlmm/plugin/cpp/networks.cpp.
//
// An evaluation is kept between energies and gradient. Functions return 0 when they did what they were asked,
// else one of the codes below, and never throw.

#include <memory>

#include "export.h"
#include "idle.h"
#include "pairs.h"
#include "region_pairs.h"

namespace {

using namespace mlmm;

constexpr int kOutOfRange = 1, kNoMemory = 2;

bool inside(const int64_t* atoms, int64_t n, int64_t n_atoms) {
    int64_t outside = 0;
    for (int64_t i = 0; i < n; ++i) outside += atoms[i] < 0 || atoms[i] >= n_atoms;
    return outside == 0;
}

}  // namespace

// Finds and evaluates the pairs; their number and, for mlmm_pairs_take and mlmm_pairs_backward, themselves.
// ranges: r_on, r_off, 1 if there is a switch, its begin, its end, Coulomb's constant.
EXPORT int mlmm_pairs_forward(int64_t n_atoms, const double* positions, const double* cell, int64_t n_active,
                              const int64_t* active, int64_t n_seen, const int64_t* seen,
                              const double* parameters, const int64_t* special_start,
                              const int64_t* special_other, const double* ranges, int64_t* n_pairs,
                              void** held) try {
    if (!inside(active, n_active, n_atoms) || !inside(seen, n_seen, n_atoms)) return kOutOfRange;
    auto own = idle<PairEnergies>().borrow();
    own->evaluate({n_atoms, parameters, special_start, special_other},
                  {ranges[0], ranges[1], ranges[2] != 0.0, ranges[3], ranges[4], ranges[5]}, positions, cell,
                  active, n_active, seen, n_seen);
    *n_pairs = own->size();
    *held = own.release();
    return 0;
} catch (...) {
    return kNoMemory;
}

// Both atoms and half of the energy of each pair.
EXPORT void mlmm_pairs_take(const void* held, int64_t* first, int64_t* second, double* half) {
    static_cast<const PairEnergies*>(held)->take(first, second, half);
}

// Adds the gradient (atoms, 3) for derivatives by the halves.
EXPORT void mlmm_pairs_backward(const void* held, const double* by_half, double* gradient) {
    static_cast<const PairEnergies*>(held)->backward(by_half, gradient);
}

EXPORT void mlmm_pairs_release(void* held) {
    std::unique_ptr<PairEnergies> own(static_cast<PairEnergies*>(held));
    try {
        idle<PairEnergies>().give_back(std::move(own));
    } catch (...) {
        // Only the work space is lost.
    }
}

// Energy of the pairs of a region in a NonbondedForce; adds to the gradient (n, 3).
// ranges: cutoff, alpha, 1 if there is a switch, its begin, Coulomb's constant.
EXPORT int mlmm_pairs_region(int64_t n, const double* positions, const double* cell, const double* parameters,
                             const int64_t* special_start, const int64_t* special_other, const double* ranges,
                             int threads, double* energy, double* gradient) try {
    if (!inside(special_other, special_start[n], n)) return kOutOfRange;
    auto own = idle<RegionPairs>().borrow();
    *energy = own->evaluate({n, parameters, special_start, special_other},
                            {ranges[0], ranges[1], ranges[2] != 0.0, ranges[3], ranges[4]}, positions, cell,
                            threads, gradient);
    idle<RegionPairs>().give_back(std::move(own));
    return 0;
} catch (...) {
    return kNoMemory;
}

// sum (w_i + w_j)/2 V_ij over short-range pairs; adds to the gradient (atoms, 3) and, where that is no null, to the
// energies of atoms, half of each pair. Other arguments as for mlmm_pairs_forward, weights of all atoms.
EXPORT int mlmm_pairs_shared(int64_t n_atoms, const double* positions, const double* cell, int64_t n_active,
                             const int64_t* active, int64_t n_seen, const int64_t* seen,
                             const double* parameters, const int64_t* special_start,
                             const int64_t* special_other, const double* ranges, const double* weights,
                             double* energy, double* gradient, double* of_atoms) try {
    if (!inside(active, n_active, n_atoms) || !inside(seen, n_seen, n_atoms)) return kOutOfRange;
    auto own = idle<PairEnergies>().borrow();
    own->evaluate({n_atoms, parameters, special_start, special_other},
                  {ranges[0], ranges[1], ranges[2] != 0.0, ranges[3], ranges[4], ranges[5]}, positions, cell,
                  active, n_active, seen, n_seen);
    *energy = own->shared(weights, gradient);
    if (of_atoms) own->add_halves(of_atoms);
    idle<PairEnergies>().give_back(std::move(own));
    return 0;
} catch (...) {
    return kNoMemory;
}

// Marks with 1 those of some atoms that are nearer than a distance to one of the sources, by cell lists; all of them
// if a position is no number. `near` has an entry for every atom and is not cleared.
EXPORT int mlmm_atoms_near(int64_t n_atoms, const double* positions, const double* cell, int64_t n_sources,
                           const int64_t* sources, int64_t n_seen, const int64_t* seen, double distance,
                           unsigned char* near) try {
    if (!inside(sources, n_sources, n_atoms) || !inside(seen, n_seen, n_atoms)) return kOutOfRange;
    NeighbourSearch search;
    Found found;
    if (!search.build(positions, n_seen, cell, 1.0, sources, n_sources, distance, seen)) {
        for (int64_t i = 0; i < n_seen; ++i) near[seen[i]] = 1;
        return 0;
    }
    for (int64_t c = 0; c < n_sources; ++c) {
        search.find(sources[c], found);
        for (int k = 0; k < found.size; ++k) near[found.atom[k]] = 1;
    }
    return 0;
} catch (...) {
    return kNoMemory;
}
