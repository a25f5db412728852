// What a NonbondedForce holds for the pairs of a region: all of them by all, with their gradient.
//
// Within the cutoff Lennard-Jones (x switch) + K q q/r, beyond it K q q erf(alpha r)/r, as in
// mlmm/blending/full_pairs.py. No list of pairs: atoms lie in rows of vectors, and what is left out is masked.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "error_function.h"
#include "neighbours.h"
#include "pieces.h"
#include "simd.h"

namespace mlmm {

// nm and kJ/mol; no cutoff: infinity; no mesh: alpha = 0. The switch ends at the cutoff.
struct RegionRanges {
    double cutoff, alpha;
    bool switched;
    double switch_on, coulomb;
};

// Atoms of the region, and their partners in pairs that are left out, as in `PairField`.
struct RegionField {
    int64_t n;
    const double* parameters;  // (n, 3): charge, half sigma, root of epsilon
    const int64_t *special_start, *special_other;
};

class RegionPairs {
   public:
    // The energy; adds to `gradient` (n, 3). The sums do not depend on the number of threads.
    double evaluate(const RegionField& field, const RegionRanges& ranges, const double* positions,
                    const double* cell, int threads, double* gradient) {
        n_ = field.n;
        pieces_ = n_ < kFew ? 1 : kPieces;
        if (!take(field, positions, cell)) {
            std::fill(gradient, gradient + 3 * n_, std::nan(""));
            return std::nan("");
        }
        for_each_piece(pieces_, threads, [&](int piece, int) {
            if (cell && ranges.switched)
                rows<true, true>(field, ranges, piece);
            else if (cell)
                rows<true, false>(field, ranges, piece);
            else if (ranges.switched)
                rows<false, true>(field, ranges, piece);
            else
                rows<false, false>(field, ranges, piece);
        });
        double energy = 0.0;
        for (int piece = 0; piece < pieces_; ++piece) {
            const Piece& own = work_[piece];
            energy += own.energy;
            for (int64_t i = 0; i < n_; ++i) {
                gradient[3 * i] += own.x[i], gradient[3 * i + 1] += own.y[i], gradient[3 * i + 2] += own.z[i];
            }
        }
        return energy;
    }

   private:
    static constexpr int kPieces = 8;
    static constexpr int64_t kFew = 256;
    static constexpr int kLanes = Lanes<double>::n;
    // Beyond it an image cannot be told in double precision.
    static constexpr double kLargest = 1e12;

    // Every eighth row, with sums of its own.
    struct Piece {
        std::vector<double> x, y, z, kept;
        double energy = 0.0;
    };

    // Atoms in rows of vectors, filled up with ones that no pair has; false if a number is not usable.
    bool take(const RegionField& field, const double* positions, const double* cell) {
        const size_t width = static_cast<size_t>(n_ + kPad);
        for (auto* v : {&x_, &y_, &z_, &charge_, &sigma_, &epsilon_}) v->assign(width, 0.0);
        int64_t broken = 0;
        for (int64_t i = 0; i < 3 * n_; ++i) broken += !(std::fabs(positions[i]) <= kLargest);
        box_ = Box();
        if (cell) {
            for (int i = 0; i < 9; ++i) broken += !(std::fabs(cell[i]) <= kLargest);
            box_.periodic = true, box_.ax = cell[0], box_.bx = cell[3], box_.by = cell[4];
            box_.cx = cell[6], box_.cy = cell[7], box_.cz = cell[8];
        }
        for (int64_t i = 0; i < n_; ++i) {
            x_[i] = positions[3 * i], y_[i] = positions[3 * i + 1], z_[i] = positions[3 * i + 2];
            charge_[i] = field.parameters[3 * i], sigma_[i] = field.parameters[3 * i + 1];
            epsilon_[i] = field.parameters[3 * i + 2];
        }
        for (int piece = 0; piece < pieces_; ++piece) {
            Piece& own = work_[piece];
            own.energy = 0.0;
            for (auto* v : {&own.x, &own.y, &own.z}) v->assign(width, 0.0);
            own.kept.assign(width, 0.0);
            std::fill_n(own.kept.begin(), n_, 1.0);
        }
        return broken == 0;
    }

    template <bool Periodic, bool Switched>
    void rows(const RegionField& field, const RegionRanges& ranges, int piece) {
        Piece& own = work_[piece];
        VectorD total = {};
        for (int64_t i = piece; i < n_; i += pieces_) {
            const int64_t first = (i + 1) / kLanes * kLanes;
            double* kept = own.kept.data();
            for (int64_t j = first; j <= i; ++j) kept[j] = 0.0;
            const int64_t *begin = field.special_other + field.special_start[i],
                          *end = field.special_other + field.special_start[i + 1];
            for (const int64_t* j = begin; j < end; ++j) kept[*j] = 0.0;
            row<Periodic, Switched>(ranges, i, first, own, total);
            for (const int64_t* j = begin; j < end; ++j) kept[*j] = 1.0;
            for (int64_t j = first; j <= i; ++j) kept[j] = 1.0;
        }
        own.energy = sum_of<double>(total);
    }

    // Pairs of one atom with those from a vector's begin on that are kept.
    template <bool Periodic, bool Switched>
    void row(const RegionRanges& ranges, int64_t i, int64_t first, Piece& own, VectorD& total) {
        const double xi = x_[i], yi = y_[i], zi = z_[i], well = 4.0 * epsilon_[i], half = sigma_[i];
        const double product = ranges.coulomb * charge_[i], alpha = ranges.alpha;
        const double limit = ranges.cutoff * ranges.cutoff;
        const double start = ranges.switch_on, inverse_width = 1.0 / (ranges.cutoff - ranges.switch_on);
        const double ix = 1.0 / box_.ax, iy = 1.0 / box_.by, iz = 1.0 / box_.cz;
        const double root_pi = 1.12837916709551257390;  // 2/sqrt(pi)
        const double magic = 6755399441055744.0;
        const VectorD zero = {}, one = broadcast(1.0);
        VectorD sum_x = {}, sum_y = {}, sum_z = {};
        for (int64_t j = first; j < n_; j += kLanes) {
            VectorD dx = load(&x_[j]) - xi, dy = load(&y_[j]) - yi, dz = load(&z_[j]) - zi;
            if (Periodic) {
                VectorD k = (dz * iz + magic) - magic;
                dx -= k * box_.cx, dy -= k * box_.cy, dz -= k * box_.cz;
                k = (dy * iy + magic) - magic;
                dx -= k * box_.bx, dy -= k * box_.by;
                dx -= ((dx * ix + magic) - magic) * box_.ax;
            }
            const Lanes<double>::I kept = load(&own.kept[j]) != zero;
            VectorD squared = dx * dx + dy * dy + dz * dz;
            squared = kept ? squared : one;
            // What is not a number is near, and stays so.
            const Lanes<double>::I far = squared >= limit;
            const VectorD r = square_root(squared), inverse = 1.0 / r;
            VectorD sixth = (load(&sigma_[j]) + half) * inverse;
            sixth *= sixth;
            sixth = sixth * sixth * sixth;
            const VectorD depth = load(&epsilon_[j]) * well;
            VectorD wells = depth * (sixth * sixth - sixth);
            VectorD slope = depth * (6.0 * sixth - 12.0 * sixth * sixth);  // times r
            if (Switched) {
                VectorD u = (r - start) * inverse_width;
                u = u < zero ? zero : u;
                u = u > one ? one : u;
                const VectorD f = 1.0 - u * u * u * (10.0 - u * (15.0 - 6.0 * u));
                const VectorD df = -30.0 * u * u * (1.0 - u) * (1.0 - u) * inverse_width;
                slope = slope * f + wells * df * r;
                wells *= f;
            }
            wells = far ? zero : wells, slope = far ? zero : slope;
            const VectorD coulomb = load(&charge_[j]) * product * inverse;
            VectorD erfc, gauss;
            error_function(alpha * r, erfc, gauss);
            const VectorD screen = far ? 1.0 - erfc : one;
            const VectorD bend = far ? root_pi * alpha * r * gauss : zero;
            VectorD energy = wells + coulomb * screen;
            VectorD along = (slope + coulomb * (bend - screen)) * inverse * inverse;
            total += kept ? energy : zero;
            along = kept ? along : zero;
            dx *= along, dy *= along, dz *= along;
            sum_x -= dx, sum_y -= dy, sum_z -= dz;
            store(&own.x[j], load(&own.x[j]) + dx);
            store(&own.y[j], load(&own.y[j]) + dy);
            store(&own.z[j], load(&own.z[j]) + dz);
        }
        own.x[i] += sum_of<double>(sum_x), own.y[i] += sum_of<double>(sum_y), own.z[i] += sum_of<double>(sum_z);
    }

    int64_t n_ = 0;
    int pieces_ = 1;
    Box box_;
    std::vector<double> x_, y_, z_, charge_, sigma_, epsilon_;
    Piece work_[kPieces];
};

}  // namespace mlmm
