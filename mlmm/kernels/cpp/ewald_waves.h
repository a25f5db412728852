// Reciprocal part of an Ewald sum: a region's multipoles among all charges of a box, wave by wave.
//
// Energy: sum_k w_k Re[S_L* S_M], w_k = (8 pi/V) psi(k R/c)/k^2 for one of each pair of waves +k, -k, psi = F + 2 u F'
// over F(0) with the smooth part F of the direct sum (see ewald_pairs.h), u = (k R/c)^2,
// S_M = sum_m c_m e^(ik.x_m), S_L = sum_i (Dq_i + i k.mu_i - k.Q_i.k) e^(ik.r_i). A wave is e^(2 pi i n.s) in
// coordinates s along the box vectors: a product of three factors, each a power of the first of its axis. Two
// waves that differ in the sign of n_z share their products.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "ewald_pairs.h"
#include "pieces.h"
#include "simd.h"

namespace mlmm {

constexpr double kTwoPi = 6.28318530717958647692;

// cos and sin of 2 pi s.
inline void circle(VectorD s, VectorD& cosine, VectorD& sine) {
    const double magic = 6755399441055744.0;
    const VectorD shifted = s * 4.0 + magic, quarter = shifted - magic;
    Lanes<double>::I bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    const VectorD y = (s * 4.0 - quarter) * (0.25 * kTwoPi), g = y * y;
    VectorD a = broadcast(1.0 / 355687428096000.0), b = broadcast(1.0 / 20922789888000.0);
    a = 1.0 / 1307674368000.0 - a * g, b = 1.0 / 87178291200.0 - b * g;
    a = 1.0 / 6227020800.0 - a * g, b = 1.0 / 479001600.0 - b * g;
    a = 1.0 / 39916800.0 - a * g, b = 1.0 / 3628800.0 - b * g;
    a = 1.0 / 362880.0 - a * g, b = 1.0 / 40320.0 - b * g;
    a = 1.0 / 5040.0 - a * g, b = 1.0 / 720.0 - b * g;
    a = 1.0 / 120.0 - a * g, b = 1.0 / 24.0 - b * g;
    a = 1.0 / 6.0 - a * g, b = 0.5 - b * g;
    a = (1.0 - a * g) * y, b = 1.0 - b * g;
    const Lanes<double>::I odd = (bits & 1) != 0, back = (bits & 2) != 0;
    const VectorD s0 = odd ? b : a, c0 = odd ? -a : b;
    sine = back ? -s0 : s0, cosine = back ? -c0 : c0;
}

class EwaldWaves {
   public:
    // triples (K, 3): one n of each pair of waves, the first of its numbers that is not zero positive. Fields
    // (n) get what the waves give them.
    void evaluate(const EwaldRanges& ranges, const double* cell, int64_t n, const double* positions,
                  const AtomMultipoles* multipoles, int64_t n_sources, const double* sources,
                  const double* charges, int64_t n_waves, const double* triples, int threads,
                  AtomField* fields) {
        take_box(cell);
        take_waves(ranges, n_waves, triples);
        take_sources(n_sources, sources, charges);
        add_up(threads);
        region(n, positions, multipoles, fields);
    }

    // Gradients of the energies of other multipoles at the positions of the last evaluation.
    void respond(int64_t n, const double* positions, const AtomMultipoles* multipoles, AtomField* fields) {
        region(n, positions, multipoles, fields);
    }

    // Adds to the gradient (sources, 3) for derivatives by the energies of the atoms.
    void backward(const double* by_energy, int threads, double* gradient) {
        weigh(by_energy);
        for_each_piece(static_cast<int>((n_sources_ + kBlock - 1) / kBlock), threads,
                       [&](int block, int) { forces(block, gradient); });
    }

   private:
    static constexpr int kLanes = Lanes<double>::n;
    static constexpr int kBlock = 128;  // sources whose factors stay in the nearest memory
    static constexpr int kVectors = kBlock / kLanes;
    static constexpr int kPieces = 8, kCoefficients = 8;
    static constexpr int kTile = kRegisters == 32 ? 4 : 2;

    // All waves with the same n_x and n_y; sums and coefficients of |n_z| = 0..last begin at a place.
    struct Row {
        int nx, ny, last;
        size_t begin;
    };

    struct Wave {
        size_t place;  // of |n_z| in its row
        bool minus;
        int n[3];
        double k[3], weight;
    };

    // Powers of the first factor of each axis, for a block of sources.
    struct Factors {
        std::vector<double> cosine[3], sine[3];

        void fill(const int* most, const double* const* s) {
            for (int a = 0; a < 3; ++a) {
                const size_t size = static_cast<size_t>(most[a] + 1) * kBlock;
                if (cosine[a].size() < size) cosine[a].resize(size), sine[a].resize(size);
                for (int v = 0; v < kBlock; v += kLanes) {
                    VectorD c1, s1, c = broadcast(1.0), d = {};
                    circle(load(s[a] + v), c1, s1);
                    for (int k = 0; k <= most[a]; ++k) {
                        store(&cosine[a][k * kBlock + v], c), store(&sine[a][k * kBlock + v], d);
                        const VectorD next = c * c1 - d * s1;
                        d = c * s1 + d * c1, c = next;
                    }
                }
            }
        }
    };

    void take_box(const double* cell) {
        const double ax = cell[0], bx = cell[3], by = cell[4], cx = cell[6], cy = cell[7], cz = cell[8];
        volume_ = ax * by * cz;
        // Columns are the reciprocal vectors: s = x H^-1, k = 2 pi H^-1 n.
        const double rows[3][3] = {{1 / ax, 0, 0},
                                   {-bx / (ax * by), 1 / by, 0},
                                   {(bx * cy - cx * by) / (ax * by * cz), -cy / (by * cz), 1 / cz}};
        // H^-1 of a lower triangle is one.
        for (int a = 0; a < 3; ++a)
            for (int b = 0; b < 3; ++b) inverse_[a][b] = rows[a][b];
    }

    void take_waves(const EwaldRanges& ranges, int64_t n_waves, const double* triples) {
        std::fill(most_, most_ + 3, 0);
        for (int64_t k = 0; k < n_waves; ++k)
            for (int a = 0; a < 3; ++a)
                most_[a] = std::max(most_[a], static_cast<int>(std::fabs(triples[3 * k + a])));
        const int across = 2 * most_[1] + 1;
        std::vector<int> last(static_cast<size_t>(most_[0] + 1) * across, -1), row_of(last.size(), -1);
        const auto spot = [&](const double* t) {
            return static_cast<size_t>(t[0]) * across + static_cast<size_t>(t[1] + most_[1]);
        };
        for (int64_t k = 0; k < n_waves; ++k) {
            int& far = last[spot(triples + 3 * k)];
            far = std::max(far, static_cast<int>(std::fabs(triples[3 * k + 2])));
        }
        rows_.clear();
        places_ = 0;
        for (size_t g = 0; g < last.size(); ++g) {
            if (last[g] < 0) continue;
            row_of[g] = static_cast<int>(rows_.size());
            rows_.push_back({static_cast<int>(g) / across, static_cast<int>(g) % across - most_[1], last[g], places_});
            places_ += static_cast<size_t>(last[g] + 1);
        }
        waves_.clear();
        const double longest = ranges.bandwidth / ranges.cutoff;
        double smooth[4];
        smooth_part<double>(ranges.smooth, -1.0, smooth);
        const double middle = smooth[0];
        for (int64_t k = 0; k < n_waves; ++k) {
            const double* t = triples + 3 * k;
            Wave wave;
            double squared = 0.0;
            for (int a = 0; a < 3; ++a) {
                wave.n[a] = static_cast<int>(t[a]);
                wave.k[a] = kTwoPi * (inverse_[a][0] * t[0] + inverse_[a][1] * t[1] + inverse_[a][2] * t[2]);
                squared += wave.k[a] * wave.k[a];
            }
            wave.minus = t[2] < 0;
            wave.place = rows_[row_of[spot(t)]].begin + static_cast<size_t>(std::abs(wave.n[2]));
            const double u = squared / (longest * longest);
            smooth_part<double>(ranges.smooth, 2.0 * u - 1.0, smooth);
            wave.weight = 4.0 * kTwoPi / volume_ * (smooth[0] - u * smooth[1]) / (middle * squared);
            waves_.push_back(wave);
        }
    }

    void take_sources(int64_t n, const double* sources, const double* charges) {
        n_sources_ = n;
        const size_t width = static_cast<size_t>((n + kBlock - 1) / kBlock * kBlock);
        for (auto& s : along_) s.assign(width, 0.0);
        charge_.assign(width, 0.0);
        std::copy(charges, charges + n, charge_.begin());
        for (int b = 0; b < 3; ++b) {
            const double i0 = inverse_[0][b], i1 = inverse_[1][b], i2 = inverse_[2][b];
            double* along = along_[b].data();
#pragma omp simd
            for (int64_t m = 0; m < n; ++m) {
                const double s = sources[3 * m] * i0 + sources[3 * m + 1] * i1 + sources[3 * m + 2] * i2;
                along[m] = s - Box::nearest(s);
            }
        }
    }

    // e^(2 pi i (n_x s_x + n_y s_y)) of a block, times the charges if there are some.
    static void plane(const Factors& f, const Row& row, const double* charges, double* real, double* imaginary) {
        const size_t ix = static_cast<size_t>(row.nx) * kBlock, iy = static_cast<size_t>(std::abs(row.ny)) * kBlock;
        const double sign = row.ny < 0 ? -1.0 : 1.0;
        for (int v = 0; v < kBlock; v += kLanes) {
            const VectorD cx = load(&f.cosine[0][ix + v]), sx = load(&f.sine[0][ix + v]);
            const VectorD cy = load(&f.cosine[1][iy + v]), sy = load(&f.sine[1][iy + v]) * sign;
            VectorD re = cx * cy - sx * sy, im = cx * sy + sx * cy;
            if (charges) {
                const VectorD c = load(charges + v);
                re *= c, im *= c;
            }
            store(real + v, re), store(imaginary + v, im);
        }
    }

    // S_M of all waves. Each piece has sums of its own, so that they do not depend on the number of threads.
    void add_up(int threads) {
        const int blocks = static_cast<int>((n_sources_ + kBlock - 1) / kBlock), pieces = std::min(kPieces, blocks);
        for_each_piece(pieces, threads, [&](int piece, int) {
            std::vector<double>& sums = sums_[piece];
            sums.assign(4 * places_ * kLanes, 0.0);
            Factors& f = factors();
            alignas(64) double real[kBlock], imaginary[kBlock];
            for (int b = blocks * piece / pieces; b < blocks * (piece + 1) / pieces; ++b) {
                const size_t at = static_cast<size_t>(b) * kBlock;
                const double* s[3] = {&along_[0][at], &along_[1][at], &along_[2][at]};
                f.fill(most_, s);
                for (const Row& row : rows_) {
                    plane(f, row, &charge_[at], real, imaginary);
                    int z = 0;
                    for (; z + kTile <= row.last + 1; z += kTile)
                        products<kTile>(f, z, real, imaginary, &sums[4 * kLanes * (row.begin + z)]);
                    for (; z + 2 <= row.last + 1; z += 2)
                        products<2>(f, z, real, imaginary, &sums[4 * kLanes * (row.begin + z)]);
                    for (; z <= row.last; ++z)
                        products<1>(f, z, real, imaginary, &sums[4 * kLanes * (row.begin + z)]);
                }
            }
        });
        total_.assign(4 * places_, 0.0);
        for (int piece = 0; piece < pieces; ++piece)
            for (size_t k = 0; k < 4 * places_; ++k)
                total_[k] += sum_of<double>(load(&sums_[piece][k * kLanes]));
    }

    // Adds products of both parts of a plane's factors with cos and sin of several |n_z| to vectors of sums: real
    // cos, imaginary sin, real sin, imaginary cos.
    template <int Tile>
    static void products(const Factors& f, int z, const double* real, const double* imaginary, double* sums) {
        VectorD t[Tile][4];
        for (int k = 0; k < Tile; ++k)
            for (int p = 0; p < 4; ++p) t[k][p] = load(sums + (4 * k + p) * kLanes);
        for (int v = 0; v < kVectors; ++v) {
            const VectorD re = load(real + v * kLanes), im = load(imaginary + v * kLanes);
            for (int k = 0; k < Tile; ++k) {
                const size_t at = static_cast<size_t>(z + k) * kBlock + v * kLanes;
                const VectorD c = load(&f.cosine[2][at]), s = load(&f.sine[2][at]);
                t[k][0] += re * c, t[k][1] += im * s, t[k][2] += re * s, t[k][3] += im * c;
            }
        }
        for (int k = 0; k < Tile; ++k)
            for (int p = 0; p < 4; ++p) store(sums + (4 * k + p) * kLanes, t[k][p]);
    }

    // What the atoms of the region meet, and their part of S_L wave by wave.
    void region(int64_t n, const double* positions, const AtomMultipoles* multipoles, AtomField* fields) {
        n_ = n;
        const size_t waves = waves_.size();
        own_.resize(2 * static_cast<size_t>(n) * waves);
        std::vector<double> cosine[3], sine[3];
        for (int64_t i = 0; i < n; ++i) {
            const double* x = positions + 3 * i;
            const AtomMultipoles& m = multipoles[i];
            for (int b = 0; b < 3; ++b) {
                const double s = x[0] * inverse_[0][b] + x[1] * inverse_[1][b] + x[2] * inverse_[2][b];
                const double angle = kTwoPi * (s - Box::nearest(s));
                cosine[b].resize(most_[b] + 1), sine[b].resize(most_[b] + 1);
                for (int k = 0; k <= most_[b]; ++k)
                    cosine[b][k] = std::cos(k * angle), sine[b][k] = std::sin(k * angle);
            }
            AtomField field;
            for (size_t w = 0; w < waves; ++w) {
                const Wave& wave = waves_[w];
                const double cx = cosine[0][wave.n[0]], sx = sine[0][wave.n[0]];
                const int ny = std::abs(wave.n[1]), nz = std::abs(wave.n[2]);
                const double cy = cosine[1][ny], sy = wave.n[1] < 0 ? -sine[1][ny] : sine[1][ny];
                const double cz = cosine[2][nz], sz = wave.minus ? -sine[2][nz] : sine[2][nz];
                const double re = cx * cy - sx * sy, im = cx * sy + sx * cy;
                const double c = re * cz - im * sz, s = re * sz + im * cz;
                const double *k = wave.k, *q = m.quadrupole, *sums = &total_[4 * wave.place];
                const double sr = wave.minus ? sums[0] + sums[1] : sums[0] - sums[1];
                const double si = wave.minus ? sums[3] - sums[2] : sums[3] + sums[2];
                const double even = m.excess - (q[0] * k[0] * k[0] + q[1] * k[1] * k[1] + q[2] * k[2] * k[2] +
                                                2.0 * (q[3] * k[0] * k[1] + q[4] * k[0] * k[2] + q[5] * k[1] * k[2]));
                const double odd = m.dipole[0] * k[0] + m.dipole[1] * k[1] + m.dipole[2] * k[2];
                const double v = wave.weight * (sr * c + si * s), d = wave.weight * (si * c - sr * s);
                own_[2 * (i * waves + w)] = even * c - odd * s, own_[2 * (i * waves + w) + 1] = even * s + odd * c;
                field.energy += even * v + odd * d, field.potential += v;
                const double along = even * d - odd * v;
                for (int a = 0; a < 3; ++a) {
                    field.slope[a] += k[a] * d, field.gradient[a] += k[a] * along;
                    field.curvature[a] -= k[a] * k[a] * v;
                }
                field.curvature[3] -= k[0] * k[1] * v, field.curvature[4] -= k[0] * k[2] * v;
                field.curvature[5] -= k[1] * k[2] * v;
            }
            fields[i].add(field);
        }
    }

    // Coefficients of the potential of the multipoles, A = w S_L*, for each |n_z|: of cos and sin in both parts of
    // the potential, then in both parts of its slope along z.
    void weigh(const double* by_energy) {
        coefficients_.assign(kCoefficients * places_, 0.0);
        const size_t waves = waves_.size();
        for (size_t w = 0; w < waves; ++w) {
            double re = 0.0, im = 0.0;
            for (int64_t i = 0; i < n_; ++i) {
                re += by_energy[i] * own_[2 * (i * waves + w)], im -= by_energy[i] * own_[2 * (i * waves + w) + 1];
            }
            re *= waves_[w].weight, im *= waves_[w].weight;
            double* c = &coefficients_[kCoefficients * waves_[w].place];
            const double sign = waves_[w].minus ? -1.0 : 1.0, z = std::abs(waves_[w].n[2]);
            // A e^(+-iz) = A cos z +- iA sin z.
            c[0] += re, c[1] -= sign * im, c[2] += im, c[3] += sign * re;
            c[4] -= z * sign * im, c[5] -= z * re, c[6] += z * sign * re, c[7] -= z * im;
        }
    }

    // Gradient of the sources of a block.
    void forces(int block, double* gradient) const {
        Factors& f = factors();
        const size_t at = static_cast<size_t>(block) * kBlock;
        const double* s[3] = {&along_[0][at], &along_[1][at], &along_[2][at]};
        f.fill(most_, s);
        alignas(64) double real[kBlock], imaginary[kBlock];
        alignas(64) double g[3][kBlock] = {};
        for (const Row& row : rows_) {
            plane(f, row, nullptr, real, imaginary);
            const double nx = row.nx, ny = row.ny;
            for (int v = 0; v < kBlock; v += 2 * kLanes) {
                VectorD value[2][2] = {}, slope[2][2] = {};
                for (int z = 0; z <= row.last; ++z) {
                    const double* k = &coefficients_[kCoefficients * (row.begin + z)];
                    for (int half = 0; half < 2; ++half) {
                        const size_t place = static_cast<size_t>(z) * kBlock + v + half * kLanes;
                        const VectorD c = load(&f.cosine[2][place]), e = load(&f.sine[2][place]);
                        value[half][0] += k[0] * c, value[half][0] += k[1] * e;
                        value[half][1] += k[2] * c, value[half][1] += k[3] * e;
                        slope[half][0] += k[4] * c, slope[half][0] += k[5] * e;
                        slope[half][1] += k[6] * c, slope[half][1] += k[7] * e;
                    }
                }
                for (int half = 0; half < 2; ++half) {
                    const int p = v + half * kLanes;
                    const VectorD re = load(real + p), im = load(imaginary + p);
                    const VectorD turned = re * value[half][1] + im * value[half][0];
                    store(&g[0][p], load(&g[0][p]) - nx * turned);
                    store(&g[1][p], load(&g[1][p]) - ny * turned);
                    store(&g[2][p], load(&g[2][p]) + re * slope[half][0] - im * slope[half][1]);
                }
            }
        }
        const int64_t end = std::min<int64_t>(n_sources_, static_cast<int64_t>(at) + kBlock);
        for (int64_t m = at; m < end; ++m) {
            const int p = static_cast<int>(m - at);
            const double c = kTwoPi * charge_[m];
            for (int a = 0; a < 3; ++a)
                gradient[3 * m + a] +=
                    c * (inverse_[a][0] * g[0][p] + inverse_[a][1] * g[1][p] + inverse_[a][2] * g[2][p]);
        }
    }

    static Factors& factors() {
        thread_local Factors own;
        return own;
    }

    double volume_ = 1.0, inverse_[3][3] = {};
    int most_[3] = {};
    int64_t n_ = 0, n_sources_ = 0;
    size_t places_ = 0;
    std::vector<Row> rows_;
    std::vector<Wave> waves_;
    std::vector<double> along_[3], charge_, sums_[kPieces], total_, own_, coefficients_;
};

}  // namespace mlmm
