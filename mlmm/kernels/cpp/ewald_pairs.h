// Direct part of an Ewald sum: screened pairs of a region's multipoles and the charges within a cutoff.
//
// Energy of an atom: sum_m c_m f(r) [Dq B0 + (mu.D) B1 + (D.Q.D) B2], D = x_m - r_i, B0 = 1/r - F(r^2/R^2)/R,
// R the cutoff, B(k+1) = -B(k)'/r, f the taper; see mlmm/electrostatics/ewald_insertion.py. Charges that are Gaussians
// of a width act on near atoms as erf(b r)/r, b = 1/(sqrt(2) width); where the force field has q0/r, that is taken
// out.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "error_function.h"
#include "neighbours.h"
#include "pieces.h"
#include "simd.h"

namespace mlmm {

// nm; the taper ends at the cutoff and begins at this share of it. No width: point charges. Smooth part F as a
// polynomial of t = 2 u - 1, u = r^2/R^2; waves go up to bandwidth/R.
struct EwaldRanges {
    double bandwidth, cutoff, taper, width;
    std::vector<double> smooth;
};

// (-2 d/du)^k F at a place, k = 0 to 3, by Horner's rule for a polynomial and its derivatives.
template <class V>
inline void smooth_part(const std::vector<double>& smooth, V t, V* f) {
    V p0 = t * 0.0, p1 = p0, p2 = p0, p3 = p0;
    for (size_t k = smooth.size(); k-- > 0;) {
        p3 = p3 * t + p2, p2 = p2 * t + p1, p1 = p1 * t + p0, p0 = p0 * t + smooth[k];
    }
    f[0] = p0, f[1] = -4.0 * p1, f[2] = 32.0 * p2, f[3] = -384.0 * p3;
}

// Of one atom: charge and its excess over the force field's, dipole, quadrupole xx yy zz xy xz yz.
struct AtomMultipoles {
    double charge, excess, dipole[3], quadrupole[6];
};

// What an atom's multipoles meet, and the gradient of its energy by its own position.
struct AtomField {
    double energy = 0, potential = 0, slope[3] = {}, curvature[6] = {}, gradient[3] = {};

    void add(const AtomField& other) {
        energy += other.energy, potential += other.potential;
        for (int a = 0; a < 3; ++a) slope[a] += other.slope[a], gradient[a] += other.gradient[a];
        for (int a = 0; a < 6; ++a) curvature[a] += other.curvature[a];
    }
};

// F0 = erf(b r)/r and F(k+1) = -F(k)'/r up to F3, without loss of digits at r = 0.
inline void smeared_potential(double b, double r, double* f) {
    const double t = b * b * r * r, scale = 1.12837916709551257390 * b;  // 2/sqrt(pi)
    if (t > 1.5) {
        const double g = scale * std::exp(-t), inverse = 1.0 / (r * r);
        f[0] = std::erf(b * r) / r;
        f[1] = (f[0] - g) * inverse;
        f[2] = (3.0 * f[1] - 2.0 * b * b * g) * inverse;
        f[3] = (5.0 * f[2] - 4.0 * b * b * b * b * g) * inverse;
        return;
    }
    double power = scale;
    for (int k = 0; k < 4; ++k) {
        double term = 1.0, sum = 1.0 / (2 * k + 1);
        for (int j = 1; j < 24; ++j) {
            term *= -t / j;
            sum += term / (2 * (k + j) + 1);
        }
        f[k] = power * sum;
        power *= 2.0 * b * b;
    }
}

class EwaldPairs {
   public:
    // Sources in rows filled up to whole vectors. Fields (n) get what the pairs give them; with Keep, of atoms
    // with an excess charge alone, no gradients but what `respond` needs.
    template <bool Keep>
    void evaluate(const EwaldRanges& ranges, const Box& box, int64_t n, const double* positions,
                  const AtomMultipoles* multipoles, int64_t n_sources, const double* sources,
                  const double* charges, int threads, AtomField* fields) {
        collect(ranges, box, n, positions, n_sources, sources, charges);
        if (pairs_.size() < static_cast<size_t>(n)) pairs_.resize(n);
        n_ = n;
        for_each_piece(static_cast<int>(n), threads, [&](int i, int) {
            find(ranges, box, i, pairs_[i]);
            fields[i].add(screened<Keep>(ranges, multipoles[i], pairs_[i]));
            add_close(ranges, multipoles[i], pairs_[i], fields[i]);
        });
    }

    // Gradients of the energies of other multipoles at the positions of the last evaluation.
    void respond(const EwaldRanges& ranges, const AtomMultipoles* multipoles, int threads, AtomField* fields) {
        for_each_piece(static_cast<int>(n_), threads, [&](int i, int) {
            fields[i].add(responding(multipoles[i], pairs_[i]));
            add_close(ranges, multipoles[i], pairs_[i], fields[i]);
        });
    }

    // Adds to the gradient (sources, 3) for derivatives by the energies of the atoms.
    void backward(const double* by_energy, double* gradient) const {
        for (int64_t i = 0; i < n_; ++i) {
            const Pairs& own = pairs_[i];
            const auto give = [&](int k) {
                double* g = gradient + 3 * own.source[k];
                g[0] += by_energy[i] * own.dx[k], g[1] += by_energy[i] * own.dy[k];
                g[2] += by_energy[i] * own.dz[k];
            };
            for (int k = 0; k < own.found; ++k) give(k);
            for (int k = own.size; k < own.all; ++k) give(k);
        }
    }

   private:
    static constexpr int kLanes = Lanes<double>::n;
    // Beyond this many 1/b a Gaussian is a point: erfc(6) = 2e-17.
    static constexpr double kReach = 6.0;

    // Of one atom: displacements of all candidates, whose places gradients take; those of the pairs. First
    // `found` pairs, filled up to `size`, then the close ones. For other multipoles: c f B1 and c f B2, and
    // what the charge, the dipole and the quadrupole pull along the displacement.
    struct Pairs {
        std::vector<double> x, y, z, charge, dx, dy, dz, squared, first, second, pull[3];
        std::vector<int64_t> source;
        int found = 0, size = 0, all = 0;

        void put(int k, size_t candidate, double c, int64_t m) {
            x[k] = dx[candidate], y[k] = dy[candidate], z[k] = dz[candidate];
            charge[k] = c, source[k] = m;
        }
    };

    // Sources that may be within the cutoff of some atom, as displacements from the middle of the region. In a
    // block that is smaller than the box their images are the same for every atom.
    void collect(const EwaldRanges& ranges, const Box& box, int64_t n, const double* positions,
                 int64_t n_sources, const double* sources, const double* charges) {
        place_atoms(box, n, positions);
        const double reach = ranges.cutoff + radius_;
        const bool upright = box.bx == 0.0 && box.cx == 0.0 && box.cy == 0.0;
        in_block_ = !box.periodic || reach < 0.499 * std::fmin(box.ax, std::fmin(box.by, box.cz));
        // The shortest image of a leaning box is sure up to half of its width only.
        const bool all = !(in_block_ || upright) || !(reach < 1e100);
        const double limit = all ? 1e300 : reach * reach * (1.0 + 1e-9);
        const size_t room = static_cast<size_t>(n_sources) + kPad;
        for (auto& axis : where_)
            if (axis.size() < room) axis.resize(room);
        if (strength_.size() < room) strength_.resize(room), which_.resize(room);
        const double ix = box.periodic ? 1.0 / box.ax : 0.0, iy = box.periodic ? 1.0 / box.by : 0.0;
        const double iz = box.periodic ? 1.0 / box.cz : 0.0;
        constexpr int kPart = 256;
        alignas(64) double x[kPart], y[kPart], z[kPart], squared[kPart];
        size_t kept = 0;
        for (int64_t begin = 0; begin < n_sources; begin += kPart) {
            const int size = static_cast<int>(std::min<int64_t>(kPart, n_sources - begin));
            const double* s = sources + 3 * begin;
#pragma omp simd
            for (int m = 0; m < size; ++m) {
                double a = s[3 * m] - middle_[0], b = s[3 * m + 1] - middle_[1], d = s[3 * m + 2] - middle_[2];
                shorten(box, ix, iy, iz, a, b, d);
                x[m] = a, y[m] = b, z[m] = d, squared[m] = a * a + b * b + d * d;
            }
            // Without a branch, which would be guessed wrong too often.
            for (int m = 0; m < size; ++m) {
                where_[0][kept] = x[m], where_[1][kept] = y[m], where_[2][kept] = z[m];
                strength_[kept] = charges[begin + m], which_[kept] = begin + m;
                kept += squared[m] < limit;
            }
        }
        candidates_ = kept;
    }

    // Atoms around the middle of the region, whose radius holds them all.
    void place_atoms(const Box& box, int64_t n, const double* positions) {
        atoms_.resize(3 * n);
        double sums[3] = {};
        for (int64_t i = 0; i < n; ++i) {
            double* d = &atoms_[3 * i];
            for (int a = 0; a < 3; ++a) d[a] = positions[3 * i + a] - positions[a];
            if (box.periodic) box.shorten(d[0], d[1], d[2]);
            for (int a = 0; a < 3; ++a) sums[a] += d[a];
        }
        radius_ = 0.0;
        for (int a = 0; a < 3; ++a) sums[a] /= static_cast<double>(std::max<int64_t>(n, 1));
        for (int64_t i = 0; i < n; ++i) {
            double* d = &atoms_[3 * i];
            for (int a = 0; a < 3; ++a) d[a] -= sums[a];
            radius_ = std::fmax(radius_, std::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]));
        }
        for (int a = 0; a < 3; ++a) middle_[a] = n ? positions[a] + sums[a] : 0.0;
    }

    static void shorten(const Box& box, double ix, double iy, double iz, double& x, double& y, double& z) {
        double k = Box::nearest(z * iz);
        x -= k * box.cx, y -= k * box.cy, z -= k * box.cz;
        k = Box::nearest(y * iy);
        x -= k * box.bx, y -= k * box.by;
        x -= Box::nearest(x * ix) * box.ax;
    }

    void find(const EwaldRanges& ranges, const Box& box, int64_t i, Pairs& own) const {
        const size_t n = candidates_, room = n + kPad;
        for (auto* v : {&own.x, &own.y, &own.z, &own.charge, &own.dx, &own.dy, &own.dz, &own.squared})
            if (v->size() < room) v->resize(room + room / 4);
        if (own.source.size() < room) own.source.resize(room + room / 4);
        const double closest = displace(box, &atoms_[3 * i], n, own);
        const double limit = ranges.cutoff * ranges.cutoff;
        // The smooth part is no polynomial beyond the cutoff.
        const double near = std::fmin(limit, 2.0 * kReach * kReach * ranges.width * ranges.width);
        int k = 0;
        for (size_t c = 0; c < n; ++c) {
            own.put(k, c, strength_[c], which_[c]);
            k += (own.squared[c] < limit) & (own.squared[c] >= near);
        }
        own.found = k;
        for (; k % kLanes; ++k) own.x[k] = 1.0, own.y[k] = own.z[k] = own.charge[k] = 0.0, own.source[k] = 0;
        own.size = k;
        for (size_t c = 0; closest < near && c < n; ++c)
            if (own.squared[c] < near) own.put(k++, c, strength_[c], which_[c]);
        own.all = k;
    }

    // Shortest displacements of all candidates from an atom, and their squares, the least of which it returns.
    double displace(const Box& box, const double* atom, size_t n, Pairs& own) const {
        const double x0 = atom[0], y0 = atom[1], z0 = atom[2];
        const double *x = where_[0].data(), *y = where_[1].data(), *z = where_[2].data();
        double *dx = own.dx.data(), *dy = own.dy.data(), *dz = own.dz.data(), *squared = own.squared.data();
        double closest = 1e300;
        if (in_block_) {
#pragma omp simd reduction(min : closest)
            for (size_t c = 0; c < n; ++c) {
                const double a = x[c] - x0, b = y[c] - y0, d = z[c] - z0;
                dx[c] = a, dy[c] = b, dz[c] = d, squared[c] = a * a + b * b + d * d;
                closest = squared[c] < closest ? squared[c] : closest;
            }
            return closest;
        }
        const double ix = 1.0 / box.ax, iy = 1.0 / box.by, iz = 1.0 / box.cz;
#pragma omp simd reduction(min : closest)
        for (size_t c = 0; c < n; ++c) {
            double a = x[c] - x0, b = y[c] - y0, d = z[c] - z0;
            shorten(box, ix, iy, iz, a, b, d);
            dx[c] = a, dy[c] = b, dz[c] = d, squared[c] = a * a + b * b + d * d;
            closest = squared[c] < closest ? squared[c] : closest;
        }
        return closest;
    }

    static void add_close(const EwaldRanges& ranges, const AtomMultipoles& m, Pairs& own, AtomField& field) {
        for (int k = own.size; k < own.all; ++k) field.add(close(ranges, m, own, k));
    }

    // The pairs beyond the width of a charge, in vectors; gradients of a charge alone, or what `responding` needs.
    template <bool Keep>
    static AtomField screened(const EwaldRanges& ranges, const AtomMultipoles& m, Pairs& own) {
        const double inner = 1.0 / (1.0 - ranges.taper), inverse_cutoff = 1.0 / ranges.cutoff;
        const double per2 = inverse_cutoff * inverse_cutoff, per3 = per2 * inverse_cutoff;
        const VectorD zero = {}, one = broadcast(1.0);
        VectorD energy = {}, potential = {}, s[3] = {}, h[6] = {}, gx = {}, gy = {}, gz = {};
        if (Keep) {
            const size_t room = own.x.size();
            for (auto* v : {&own.first, &own.second, &own.pull[0], &own.pull[1], &own.pull[2]})
                if (v->size() < room) v->resize(room);
        }
        for (int k = 0; k < own.size; k += kLanes) {
            const VectorD x = load(&own.x[k]), y = load(&own.y[k]), z = load(&own.z[k]);
            const VectorD squared = x * x + y * y + z * z, r = square_root(squared);
            const VectorD inverse = 1.0 / r, inverse2 = inverse * inverse;
            VectorD smooth[4];
            smooth_part<VectorD>(ranges.smooth, squared * (2.0 * per2) - 1.0, smooth);
            const VectorD p1 = inverse * inverse2, p2 = 3.0 * p1 * inverse2, p3 = 5.0 * p2 * inverse2;
            const VectorD b0 = inverse - inverse_cutoff * smooth[0], b1 = p1 - per3 * smooth[1];
            const VectorD b2 = p2 - (per2 * per3) * smooth[2], b3 = p3 - (per2 * per2 * per3) * smooth[3];
            VectorD t = (r * inverse_cutoff - ranges.taper) * inner;
            t = t < zero ? zero : t;
            t = t > one ? one : t;
            const VectorD f = 1.0 - t * t * t * (10.0 - t * (15.0 - 6.0 * t));
            const VectorD df = t * t * (1.0 - t) * (1.0 - t) * (-30.0 * inner * inverse_cutoff);
            const VectorD c = load(&own.charge[k]), cf = c * f;
            const VectorD u1 = cf * b1, u2 = cf * b2, v2 = u2 + u2;
            potential += cf * b0;
            s[0] += u1 * x, s[1] += u1 * y, s[2] += u1 * z;
            const VectorD hx = u2 * x, hy = u2 * y, hz = u2 * z;
            h[0] += hx * x, h[1] += hy * y, h[2] += hz * z;
            h[3] += hx * y, h[4] += hx * z, h[5] += hy * z;
            if (Keep) {
                const VectorD end = c * df * inverse;
                store(&own.first[k], u1), store(&own.second[k], u2);
                store(&own.pull[0][k], end * b0 - u1), store(&own.pull[1][k], end * b1 - u2);
                store(&own.pull[2][k], end * b2 - cf * b3);
                continue;
            }
            const VectorD qx = m.quadrupole[0] * x + m.quadrupole[3] * y + m.quadrupole[4] * z;
            const VectorD qy = m.quadrupole[3] * x + m.quadrupole[1] * y + m.quadrupole[5] * z;
            const VectorD qz = m.quadrupole[4] * x + m.quadrupole[5] * y + m.quadrupole[2] * z;
            const VectorD along = m.dipole[0] * x + m.dipole[1] * y + m.dipole[2] * z;
            const VectorD twice = qx * x + qy * y + qz * z;
            const VectorD pair = m.excess * b0 + along * b1 + twice * b2;
            const VectorD radial = c * df * pair * inverse - cf * (m.excess * b1 + along * b2 + twice * b3);
            energy += cf * pair;
            const VectorD px = radial * x + u1 * m.dipole[0] + v2 * qx;
            const VectorD py = radial * y + u1 * m.dipole[1] + v2 * qy;
            const VectorD pz = radial * z + u1 * m.dipole[2] + v2 * qz;
            gx -= px, gy -= py, gz -= pz;
            store(&own.dx[k], px), store(&own.dy[k], py), store(&own.dz[k], pz);
        }
        AtomField field;
        field.potential = sum_of<double>(potential);
        field.energy = Keep ? m.excess * field.potential : sum_of<double>(energy);
        for (int k = 0; k < 3; ++k) field.slope[k] = sum_of<double>(s[k]);
        for (int k = 0; k < 6; ++k) field.curvature[k] = sum_of<double>(h[k]);
        field.gradient[0] = sum_of<double>(gx), field.gradient[1] = sum_of<double>(gy);
        field.gradient[2] = sum_of<double>(gz);
        return field;
    }

    // Gradients of the pairs of `screened` for other multipoles.
    static AtomField responding(const AtomMultipoles& m, Pairs& own) {
        VectorD gx = {}, gy = {}, gz = {};
        for (int k = 0; k < own.size; k += kLanes) {
            const VectorD x = load(&own.x[k]), y = load(&own.y[k]), z = load(&own.z[k]);
            const VectorD qx = m.quadrupole[0] * x + m.quadrupole[3] * y + m.quadrupole[4] * z;
            const VectorD qy = m.quadrupole[3] * x + m.quadrupole[1] * y + m.quadrupole[5] * z;
            const VectorD qz = m.quadrupole[4] * x + m.quadrupole[5] * y + m.quadrupole[2] * z;
            const VectorD along = m.dipole[0] * x + m.dipole[1] * y + m.dipole[2] * z;
            const VectorD twice = qx * x + qy * y + qz * z;
            const VectorD radial = m.excess * load(&own.pull[0][k]) + along * load(&own.pull[1][k]) +
                                   twice * load(&own.pull[2][k]);
            const VectorD u1 = load(&own.first[k]), u2 = load(&own.second[k]), v2 = u2 + u2;
            const VectorD px = radial * x + u1 * m.dipole[0] + v2 * qx;
            const VectorD py = radial * y + u1 * m.dipole[1] + v2 * qy;
            const VectorD pz = radial * z + u1 * m.dipole[2] + v2 * qz;
            gx -= px, gy -= py, gz -= pz;
            store(&own.dx[k], px), store(&own.dy[k], py), store(&own.dz[k], pz);
        }
        AtomField field;
        field.gradient[0] = sum_of<double>(gx), field.gradient[1] = sum_of<double>(gy);
        field.gradient[2] = sum_of<double>(gz);
        return field;
    }

    // One pair within the width of a charge: erf(b r)/r less the smooth part for the model's multipoles, less the
    // bare q0/r of the force field.
    static AtomField close(const EwaldRanges& ranges, const AtomMultipoles& m, Pairs& own, int k) {
        const double x = own.x[k], y = own.y[k], z = own.z[k], c = own.charge[k];
        const double r = std::sqrt(x * x + y * y + z * z);
        double f[4], smooth[4];
        smeared_potential(std::sqrt(0.5) / ranges.width, r, f);
        const double per = 1.0 / ranges.cutoff;
        smooth_part<double>(ranges.smooth, 2.0 * r * r * per * per - 1.0, smooth);
        for (int a = 0; a < 4; ++a) smooth[a] *= std::pow(per, 2 * a + 1);
        const double fixed = m.charge - m.excess;
        const double along = m.dipole[0] * x + m.dipole[1] * y + m.dipole[2] * z;
        const double q[3] = {m.quadrupole[0] * x + m.quadrupole[3] * y + m.quadrupole[4] * z,
                             m.quadrupole[3] * x + m.quadrupole[1] * y + m.quadrupole[5] * z,
                             m.quadrupole[4] * x + m.quadrupole[5] * y + m.quadrupole[2] * z};
        const double twice = q[0] * x + q[1] * y + q[2] * z;
        const double u1 = c * (f[1] - smooth[1]), u2 = c * (f[2] - smooth[2]), u3 = c * (f[3] - smooth[3]);
        const double radial = c * (fixed / (r * r * r) - m.charge * f[1] + m.excess * smooth[1]) -
                              (along * u2 + twice * u3);
        AtomField field;
        field.potential = c * (f[0] - smooth[0]);
        field.energy = c * (m.charge * f[0] - m.excess * smooth[0] - fixed / r) + along * u1 + twice * u2;
        const double d[3] = {x, y, z};
        double p[3];
        for (int a = 0; a < 3; ++a) {
            field.slope[a] = u1 * d[a];
            field.curvature[a] = u2 * d[a] * d[a];
            p[a] = radial * d[a] + u1 * m.dipole[a] + 2.0 * u2 * q[a];
            field.gradient[a] = -p[a];
        }
        field.curvature[3] = u2 * x * y, field.curvature[4] = u2 * x * z, field.curvature[5] = u2 * y * z;
        own.dx[k] = p[0], own.dy[k] = p[1], own.dz[k] = p[2];
        return field;
    }

    int64_t n_ = 0;
    size_t candidates_ = 0;
    bool in_block_ = true;
    double radius_ = 0.0, middle_[3] = {};
    std::vector<double> atoms_, where_[3], strength_;
    std::vector<int64_t> which_;
    std::vector<Pairs> pairs_;
};

}  // namespace mlmm
