// Vectors of the processor through compiler extensions, and the functions of them that ANI needs.
//
// No option that lets the compiler assume finite numbers: what is not a number must stay so to the end.
#pragma once

#include <cstdint>
#include <cstring>

namespace mlmm {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
constexpr int kRegisters = 32;
constexpr const char* kLevel = "x86-64-v4";
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int kBytes = 32;
constexpr int kRegisters = 16;
constexpr const char* kLevel = "x86-64-v3";
#else
constexpr int kBytes = 16;
constexpr int kRegisters = 16;
constexpr const char* kLevel = "generic";
#endif

template <class T>
struct Lanes;

template <>
struct Lanes<float> {
    typedef float V __attribute__((vector_size(kBytes)));
    typedef int32_t I __attribute__((vector_size(kBytes)));
    static constexpr int n = kBytes / 4;
};

template <>
struct Lanes<double> {
    typedef double V __attribute__((vector_size(kBytes)));
    typedef int64_t I __attribute__((vector_size(kBytes)));
    static constexpr int n = kBytes / 8;
};

typedef Lanes<float>::V VectorF;
typedef Lanes<double>::V VectorD;

// Arrays are padded to this many entries, a whole number of vectors at every level.
constexpr int kPad = 16;

inline int padded(int n) { return (n + kPad - 1) / kPad * kPad; }

template <class T>
inline typename Lanes<T>::V load(const T* p) {
    typename Lanes<T>::V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
inline void store(T* p, typename Lanes<T>::V v) {
    std::memcpy(p, &v, sizeof v);
}

// x − 0 is x for every x, the negative zero and not-a-number included.
inline VectorF broadcast(float x) { return x - VectorF{}; }
inline VectorD broadcast(double x) { return x - VectorD{}; }

template <class T>
inline T sum_of(typename Lanes<T>::V v) {
    T total = v[0];
    for (int k = 1; k < Lanes<T>::n; ++k) total += v[k];
    return total;
}

// exp by reduction to |r| <= ln2/2 and a Taylor series, of numbers that are at most moderately positive; below
// the range it stays at the smallest result.
inline VectorF exponential(VectorF x) {
    x = x < -87.0f ? broadcast(-87.0f) : x;
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    VectorF shifted = x * 1.44269504088896341f + magic;
    VectorF n = shifted - magic;
    VectorF r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    VectorF p = broadcast(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    Lanes<float>::I bits, one;
    std::memcpy(&bits, &shifted, sizeof bits);
    one = (bits - 0x4B400000 + 127) << 23;
    VectorF power;
    std::memcpy(&power, &one, sizeof power);
    return p * power;
}

inline VectorD exponential(VectorD x) {
    x = x < -708.0 ? broadcast(-708.0) : x;
    const double magic = 6755399441055744.0;  // 1.5 * 2^52
    VectorD shifted = x * 1.44269504088896340736 + magic;
    VectorD n = shifted - magic;
    VectorD r = x - n * 6.93147180369123816490e-01;
    r = r - n * 1.90821492927058770002e-10;
    VectorD p = broadcast(1.0 / 479001600);
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    Lanes<double>::I bits, one;
    std::memcpy(&bits, &shifted, sizeof bits);
    one = (bits - 0x4338000000000000LL + 1023) << 52;
    VectorD power;
    std::memcpy(&power, &one, sizeof power);
    return p * power;
}

// log of a normal positive number, through the area tangent of its mantissa in [1/sqrt2, sqrt2).
inline VectorD logarithm(VectorD x) {
    Lanes<double>::I bits;
    std::memcpy(&bits, &x, sizeof bits);
    // The exponent as if the mantissa began at 1/sqrt2.
    Lanes<double>::I exponent = ((bits - 0x3FE6A09E667F3BCDLL) >> 52);
    Lanes<double>::I mantissa = bits - (exponent << 52);
    VectorD m, e;
    std::memcpy(&m, &mantissa, sizeof m);
    Lanes<double>::I shifted = exponent + 0x4338000000000000LL;
    std::memcpy(&e, &shifted, sizeof e);
    e = e - 6755399441055744.0;
    VectorD f = (m - 1.0) / (m + 1.0);
    VectorD g = f * f;
    VectorD p = broadcast(2.0 / 21);
    for (int k = 19; k >= 1; k -= 2) p = p * g + 2.0 / k;
    // x keeps what is not a number.
    return e * 0.693147180559945309417 + p * f + (x - x);
}

// The smooth cutoff of eq. 2, f = cos(pi r/R)/2 + 1/2, and its derivative; 0 <= r <= R.
inline void cutoff_function(VectorD r, double radius, VectorD& f, VectorD& df) {
    const double pi = 3.14159265358979323846;
    VectorD y = r * (pi / radius) - 0.5 * pi;  // cos(y + pi/2) = -sin y, sin(y + pi/2) = cos y
    VectorD g = y * y;
    VectorD s = broadcast(1.0 / 51090942171709440000.0);
    VectorD c = broadcast(1.0 / 2432902008176640000.0);
    double fs = 51090942171709440000.0, fc = 2432902008176640000.0;
    for (int k = 19; k >= 1; k -= 2) {
        fs /= (k + 1) * (k + 2);
        s = 1.0 / fs - s * g;
        fc /= k * (k + 1);
        c = 1.0 / fc - c * g;
    }
    f = 0.5 - 0.5 * s * y;
    df = c * (-0.5 * pi / radius);
}

}  // namespace mlmm
