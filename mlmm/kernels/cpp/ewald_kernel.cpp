// Multipoles of a region among point charges, in a box by Ewald's sum, behind a plain C interface; loaded by
// mlmm/kernels/ewald.py.
//
// An evaluation is kept between energies and gradient. Functions return 0 when they did what they were asked,
// else a code, and never throw.

#include <limits>
#include <memory>

#include "ewald_waves.h"
#include "export.h"
#include "idle.h"

namespace {

using namespace mlmm;

constexpr int kNoMemory = 2;
// Beyond it an image cannot be told in double precision.
constexpr double kLargest = 1e12;

struct Insertion {
    EwaldPairs pairs;
    EwaldWaves waves;
    std::vector<AtomMultipoles> multipoles;
    std::vector<AtomField> fields;
    std::vector<double> by_energy, positions;
    EwaldRanges ranges;
    int64_t n = 0, n_sources = 0;
    bool periodic = false, broken = false;
    double coulomb = 1.0;
};

bool usable(const double* x, int64_t n) {
    int64_t broken = 0;
    for (int64_t i = 0; i < n; ++i) broken += !(std::fabs(x[i]) <= kLargest);
    return broken == 0;
}

void take_multipoles(Insertion& own, const double* charges, const double* reference, const double* dipoles,
                     const double* quadrupoles) {
    own.multipoles.resize(own.n);
    for (int64_t i = 0; i < own.n; ++i) {
        AtomMultipoles& a = own.multipoles[i];
        const double* q = quadrupoles + 9 * i;
        a.charge = charges[i], a.excess = charges[i] - reference[i];
        std::copy(dipoles + 3 * i, dipoles + 3 * i + 3, a.dipole);
        a.quadrupole[0] = q[0], a.quadrupole[1] = q[4], a.quadrupole[2] = q[8];
        a.quadrupole[3] = 0.5 * (q[1] + q[3]), a.quadrupole[4] = 0.5 * (q[2] + q[6]);
        a.quadrupole[5] = 0.5 * (q[5] + q[7]);
    }
}

// What the multipoles meet; false where something is no usable number.
template <bool Keep>
bool evaluate(Insertion& own, const double* positions, const double* sources, const double* source_charges,
              const double* cell, int64_t n_waves, const double* triples, int threads) {
    const int64_t n = own.n, m = own.n_sources;
    own.fields.assign(n, AtomField());
    own.broken = !usable(positions, 3 * n) || !usable(sources, 3 * m) || (cell && !usable(cell, 9));
    if (own.broken) return false;
    Box box;
    if (cell) {
        box.periodic = true, box.ax = cell[0], box.bx = cell[3], box.by = cell[4];
        box.cx = cell[6], box.cy = cell[7], box.cz = cell[8];
    }
    own.pairs.evaluate<Keep>(own.ranges, box, n, positions, own.multipoles.data(), m, sources, source_charges,
                             threads, own.fields.data());
    if (cell)
        own.waves.evaluate(own.ranges, cell, n, positions, own.multipoles.data(), m, sources, source_charges,
                           n_waves, triples, threads, own.fields.data());
    return true;
}

void begin(Insertion& own, int64_t n, int64_t m, const double* cell, int64_t n_smooth, const double* smooth,
           const double* ranges) {
    own.n = n, own.n_sources = m, own.periodic = cell != nullptr, own.coulomb = ranges[4];
    own.ranges = {ranges[0], ranges[1], ranges[2], ranges[3], {smooth, smooth + n_smooth}};
}

// Places of xx xy xz yx yy yz zx zy zz among xx yy zz xy xz yz.
constexpr int kPlace[9] = {0, 3, 4, 3, 1, 5, 4, 5, 2};

}  // namespace

// Energies (n) of multipoles at the positions (n, 3) among charges at the sources (m, 3), all in nm and e.
// cell: reduced box vectors in rows, or null. triples: see EwaldWaves. smooth: polynomial
// F, see EwaldRanges. ranges: bandwidth, cutoff, taper, width of the charges, Coulomb's constant.
// reference: charges (n) that the force field has already.
EXPORT int mlmm_ewald_forward(int64_t n, const double* positions, int64_t m, const double* sources,
                              const double* source_charges, const double* cell, int64_t n_waves,
                              const double* triples, int64_t n_smooth, const double* smooth,
                              const double* ranges, const double* reference,
                              const double* charges, const double* dipoles, const double* quadrupoles,
                              int threads, double* energies, void** held) try {
    auto own = idle<Insertion>().borrow();
    begin(*own, n, m, cell, n_smooth, smooth, ranges);
    take_multipoles(*own, charges, reference, dipoles, quadrupoles);
    if (!evaluate<false>(*own, positions, sources, source_charges, cell, n_waves, triples, threads))
        std::fill(energies, energies + n, std::nan(""));
    else
        for (int64_t i = 0; i < n; ++i) energies[i] = ranges[4] * own->fields[i].energy;
    *held = own.release();
    return 0;
} catch (...) {
    return kNoMemory;
}

// What any multipoles would meet, in rows (n, 14): the energy of the charges -reference, the potential, its
// gradient and its second derivatives but for their trace. Arguments as mlmm_ewald_forward.
EXPORT int mlmm_ewald_potentials(int64_t n, const double* positions, int64_t m, const double* sources,
                                 const double* source_charges, const double* cell, int64_t n_waves,
                                 const double* triples, int64_t n_smooth, const double* smooth,
                                 const double* ranges, const double* reference, int threads,
                                 double* rows, void** held) try {
    auto own = idle<Insertion>().borrow();
    begin(*own, n, m, cell, n_smooth, smooth, ranges);
    own->positions.assign(positions, positions + 3 * n);
    own->multipoles.assign(n, AtomMultipoles());
    for (int64_t i = 0; i < n; ++i) own->multipoles[i].excess = -reference[i];
    if (!evaluate<true>(*own, positions, sources, source_charges, cell, n_waves, triples, threads)) {
        std::fill(rows, rows + 14 * n, std::nan(""));
    } else {
        for (int64_t i = 0; i < n; ++i, rows += 14) {
            const AtomField& f = own->fields[i];
            rows[0] = own->coulomb * f.energy, rows[1] = own->coulomb * f.potential;
            for (int a = 0; a < 3; ++a) rows[2 + a] = own->coulomb * f.slope[a];
            for (int a = 0; a < 9; ++a) rows[5 + a] = own->coulomb * f.curvature[kPlace[a]];
        }
    }
    *held = own.release();
    return 0;
} catch (...) {
    return kNoMemory;
}

// Adds gradients by the positions and sources of mlmm_ewald_potentials for derivatives by its rows (n, 14).
EXPORT int mlmm_ewald_potentials_backward(void* held, const double* by_rows, const double* reference, int threads,
                                          double* by_position, double* by_source) try {
    Insertion& own = *static_cast<Insertion*>(held);
    if (own.broken) {
        std::fill(by_position, by_position + 3 * own.n, std::nan(""));
        std::fill(by_source, by_source + 3 * own.n_sources, std::nan(""));
        return 0;
    }
    // Linear in the multipoles, so that derivatives take their places; so does the part of the fixed charges.
    const size_t n = static_cast<size_t>(own.n);
    std::vector<double> charges(n), fixed(n), dipoles(3 * n), quadrupoles(9 * n);
    for (size_t i = 0; i < n; ++i) {
        const double* row = by_rows + 14 * i;
        charges[i] = row[1], fixed[i] = row[0] * reference[i];
        std::copy(row + 2, row + 5, &dipoles[3 * i]);
        std::copy(row + 5, row + 14, &quadrupoles[9 * i]);
    }
    take_multipoles(own, charges.data(), fixed.data(), dipoles.data(), quadrupoles.data());
    own.fields.assign(n, AtomField());
    own.pairs.respond(own.ranges, own.multipoles.data(), threads, own.fields.data());
    if (own.periodic) own.waves.respond(own.n, own.positions.data(), own.multipoles.data(), own.fields.data());
    own.by_energy.assign(n, own.coulomb);
    for (size_t i = 0; i < n; ++i)
        for (int a = 0; a < 3; ++a) by_position[3 * i + a] += own.coulomb * own.fields[i].gradient[a];
    own.pairs.backward(own.by_energy.data(), by_source);
    if (own.periodic) own.waves.backward(own.by_energy.data(), threads, by_source);
    return 0;
} catch (...) {
    return kNoMemory;
}

// Adds gradients by the positions (n, 3), sources (m, 3), charges (n), dipoles (n, 3) and quadrupoles (n, 3, 3)
// for derivatives by the energies.
EXPORT int mlmm_ewald_backward(void* held, const double* by_energy, int threads, double* by_position,
                               double* by_source, double* by_charge, double* by_dipole,
                               double* by_quadrupole) try {
    Insertion& own = *static_cast<Insertion*>(held);
    if (own.broken) {
        std::fill(by_position, by_position + 3 * own.n, std::nan(""));
        std::fill(by_source, by_source + 3 * own.n_sources, std::nan(""));
        return 0;
    }
    own.by_energy.resize(own.n);
    for (int64_t i = 0; i < own.n; ++i) {
        const double g = own.coulomb * by_energy[i];
        own.by_energy[i] = g;
        const AtomField& f = own.fields[i];
        by_charge[i] += g * f.potential;
        for (int a = 0; a < 3; ++a) {
            by_position[3 * i + a] += g * f.gradient[a];
            by_dipole[3 * i + a] += g * f.slope[a];
        }
        for (int a = 0; a < 9; ++a) by_quadrupole[9 * i + a] += g * f.curvature[kPlace[a]];
    }
    own.pairs.backward(own.by_energy.data(), by_source);
    if (own.periodic) own.waves.backward(own.by_energy.data(), threads, by_source);
    return 0;
} catch (...) {
    return kNoMemory;
}

EXPORT void mlmm_ewald_release(void* held) {
    std::unique_ptr<Insertion> own(static_cast<Insertion*>(held));
    try {
        idle<Insertion>().give_back(std::move(own));
    } catch (...) {
        // Only the work space is lost.
    }
}
