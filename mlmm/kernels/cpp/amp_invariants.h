// Products of the multipoles of both ends of an edge and its direction, and their derivatives.
//
// Multipoles of an atom: components in rows of as many channels, dipole x y z, traceless quadrupole xx yy zz xy
// xz yz. Invariants of an edge: nine rows of as many channels.
#pragma once

#include <cstddef>

namespace mlmm {

constexpr int kComponents = 9, kInvariants = 9;

// s, t: multipoles of sender and receiver; u: direction.
template <class T, int C>
void invariants(const T* s, const T* t, const T* u, T* out) {
    const T ux = u[0], uy = u[1], uz = u[2];
#pragma omp simd
    for (int c = 0; c < C; ++c) {
        const T sx = s[c], sy = s[C + c], sz = s[2 * C + c], tx = t[c], ty = t[C + c], tz = t[2 * C + c];
        const T s0 = s[3 * C + c], s1 = s[4 * C + c], s2 = s[5 * C + c];
        const T s3 = s[6 * C + c], s4 = s[7 * C + c], s5 = s[8 * C + c];
        const T t0 = t[3 * C + c], t1 = t[4 * C + c], t2 = t[5 * C + c];
        const T t3 = t[6 * C + c], t4 = t[7 * C + c], t5 = t[8 * C + c];
        const T ax = s0 * ux + s3 * uy + s4 * uz, ay = s3 * ux + s1 * uy + s5 * uz, az = s4 * ux + s5 * uy + s2 * uz;
        const T bx = t0 * ux + t3 * uy + t4 * uz, by = t3 * ux + t1 * uy + t5 * uz, bz = t4 * ux + t5 * uy + t2 * uz;
        out[c] = sx * ux + sy * uy + sz * uz;
        out[C + c] = tx * ux + ty * uy + tz * uz;
        out[2 * C + c] = sx * tx + sy * ty + sz * tz;
        out[3 * C + c] = ax * ux + ay * uy + az * uz;
        out[4 * C + c] = bx * ux + by * uy + bz * uz;
        out[5 * C + c] = ax * tx + ay * ty + az * tz;
        out[6 * C + c] = bx * sx + by * sy + bz * sz;
        out[7 * C + c] = s0 * t0 + s1 * t1 + s2 * t2 + T(2) * (s3 * t3 + s4 * t4 + s5 * t5);
        out[8 * C + c] = ax * bx + ay * by + az * bz;
    }
}

// Adds to the gradients of multipoles (as stored) and direction for derivatives g by the invariants.
template <class T, int C>
void invariants_back(const T* s, const T* t, const T* u, const T* g, T* by_s, T* by_t, T* by_u) {
    const T ux = u[0], uy = u[1], uz = u[2];
    T sum_x = 0, sum_y = 0, sum_z = 0;
#pragma omp simd reduction(+ : sum_x, sum_y, sum_z)
    for (int c = 0; c < C; ++c) {
        const T sx = s[c], sy = s[C + c], sz = s[2 * C + c], tx = t[c], ty = t[C + c], tz = t[2 * C + c];
        const T s0 = s[3 * C + c], s1 = s[4 * C + c], s2 = s[5 * C + c];
        const T s3 = s[6 * C + c], s4 = s[7 * C + c], s5 = s[8 * C + c];
        const T t0 = t[3 * C + c], t1 = t[4 * C + c], t2 = t[5 * C + c];
        const T t3 = t[6 * C + c], t4 = t[7 * C + c], t5 = t[8 * C + c];
        const T ax = s0 * ux + s3 * uy + s4 * uz, ay = s3 * ux + s1 * uy + s5 * uz, az = s4 * ux + s5 * uy + s2 * uz;
        const T bx = t0 * ux + t3 * uy + t4 * uz, by = t3 * ux + t1 * uy + t5 * uz, bz = t4 * ux + t5 * uy + t2 * uz;
        const T g0 = g[c], g1 = g[C + c], g2 = g[2 * C + c], g3 = g[3 * C + c], g4 = g[4 * C + c];
        const T g5 = g[5 * C + c], g6 = g[6 * C + c], g7 = g[7 * C + c], g8 = g[8 * C + c];
        by_s[c] += g0 * ux + g2 * tx + g6 * bx, by_s[C + c] += g0 * uy + g2 * ty + g6 * by;
        by_s[2 * C + c] += g0 * uz + g2 * tz + g6 * bz;
        by_t[c] += g1 * ux + g2 * sx + g5 * ax, by_t[C + c] += g1 * uy + g2 * sy + g5 * ay;
        by_t[2 * C + c] += g1 * uz + g2 * sz + g5 * az;
        // By both quadrupoles times u.
        const T px = g3 * ux + g5 * tx + g8 * bx, py = g3 * uy + g5 * ty + g8 * by, pz = g3 * uz + g5 * tz + g8 * bz;
        const T qx = g4 * ux + g6 * sx + g8 * ax, qy = g4 * uy + g6 * sy + g8 * ay, qz = g4 * uz + g6 * sz + g8 * az;
        const T twice = g7 + g7;
        by_s[3 * C + c] += px * ux + g7 * t0, by_s[4 * C + c] += py * uy + g7 * t1;
        by_s[5 * C + c] += pz * uz + g7 * t2, by_s[6 * C + c] += px * uy + py * ux + twice * t3;
        by_s[7 * C + c] += px * uz + pz * ux + twice * t4, by_s[8 * C + c] += py * uz + pz * uy + twice * t5;
        by_t[3 * C + c] += qx * ux + g7 * s0, by_t[4 * C + c] += qy * uy + g7 * s1;
        by_t[5 * C + c] += qz * uz + g7 * s2, by_t[6 * C + c] += qx * uy + qy * ux + twice * s3;
        by_t[7 * C + c] += qx * uz + qz * ux + twice * s4, by_t[8 * C + c] += qy * uz + qz * uy + twice * s5;
        sum_x += g0 * sx + g1 * tx + g3 * ax + g4 * bx + s0 * px + s3 * py + s4 * pz + t0 * qx + t3 * qy + t4 * qz;
        sum_y += g0 * sy + g1 * ty + g3 * ay + g4 * by + s3 * px + s1 * py + s5 * pz + t3 * qx + t1 * qy + t5 * qz;
        sum_z += g0 * sz + g1 * tz + g3 * az + g4 * bz + s4 * px + s5 * py + s2 * pz + t4 * qx + t5 * qy + t2 * qz;
    }
    by_u[0] += sum_x, by_u[1] += sum_y, by_u[2] += sum_z;
}

}  // namespace mlmm
