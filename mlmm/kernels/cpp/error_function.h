// Square roots and the complementary error function of vectors of the processor.
#pragma once

#include <cmath>

#include "simd.h"

namespace mlmm {

inline VectorD square_root(VectorD x) {
    VectorD root;
    for (int k = 0; k < Lanes<double>::n; ++k) root[k] = std::sqrt(x[k]);
    return root;
}

// erfc(x) and exp(-x^2), x >= 0: (1 + 2x) exp(x^2) erfc(x) as a series in (x - 3.75)/(x + 3.75) (Schonfelder,
// Math. Comp. 32, 1232 (1978)), a Chebyshev fit of our own with a relative error of 4e-14.
inline void error_function(VectorD x, VectorD& erfc, VectorD& gauss) {
    static constexpr double kSeries[] = {
        1.2375126308377928,     -0.1402405985855061,    0.003585415492477342,   0.08227673848712364,
        -0.1088039303755079,    0.09230432122630407,    -0.058693395559537745,  0.028362276757789878,
        -0.009746599577810707,  0.0017556295098350434,  0.0002937900613190643,  -0.00029016629854870584,
        5.1470034968303955e-05, 2.2410019228612918e-05, -1.1180323870604441e-05, -1.0083452170479683e-06,
        1.5095039346765625e-06, -2.7749611122883763e-08, -1.2654604122106678e-07, 8.526359817483033e-09};
    const VectorD above = x + 3.75, twice = 1.0 + 2.0 * x;
    const VectorD both = 1.0 / (above * twice);
    const VectorD t = (x - 3.75) * (both * twice);
    VectorD p = broadcast(kSeries[19]);
    for (int k = 18; k >= 0; --k) p = p * t + kSeries[k];
    gauss = exponential(-x * x);
    erfc = gauss * p * (both * above);
}

}  // namespace mlmm
