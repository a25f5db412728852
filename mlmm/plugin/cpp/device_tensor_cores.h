// Device code of the layers on tensor cores, in CUDA's own dialect: for single precision and tiles of 16 rows, on
// devices that have them; elsewhere stands what device_networks.h has.
//
// A number is the sum of two that have eleven bits each; of the products the largest three are taken, which leaves the
// accuracy of single precision (Markidis et al., IPDPSW 2018, 10.1109/IPDPSW.2018.00091). Tensor cores cut off what does
// not fit into a sum, which is a bias; those of 16 inputs are therefore added up outside (Ootomo and Yokota, IJHPCA 36,
// 475, 2022, 10.1177/10943420221090256). Rows are those of a tile, 16, and columns eight outputs at a time; the four
// lanes that share a row hold four inputs each, as weights lie.
#pragma once

static const char* const kDeviceTensorCores = R"KERNEL(

#if defined(USE_TENSOR_CORES) && defined(__CUDA_ARCH__)
#if __CUDA_ARCH__ >= 800
#define TENSOR_CORES
#endif
#endif

#ifdef TENSOR_CORES

/**
 * The upper eleven bits of a number, and those that follow.
 */
struct TwoParts {
    unsigned int high, low;
};

DEVICE TwoParts inTwoParts(real x) {
    TwoParts parts;
    parts.high = (__float_as_uint(x)+0x1000) & 0xffffe000;
    // The last bits do not count; half of the last that does is added, so that it is rounded.
    parts.low = __float_as_uint(x-__uint_as_float(parts.high))+0x1000;
    return parts;
}

/**
 * sums += a*b: 16 rows of 8 numbers and 8 columns of them, shared out among the lanes of a warp.
 */
DEVICE void addProduct(real* sums, unsigned int a0, unsigned int a1, unsigned int a2, unsigned int a3, unsigned int b0,
        unsigned int b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/**
 * For quarters `begin` to `end` of the inputs, in fours, all rows and 8*TILES outputs: sums of this lane, which are
 * rows lane/4 and lane/4+8 of outputs 2*(lane%4) and the next. x: rows of `stride` quarters.
 */
template <int TILES>
DEVICE void multiplyTiles(const real4* RESTRICT x, const int stride, int begin, int end,
        const real4* RESTRICT weights, const int outputs, real (&sums)[TILES][4]) {
    const int lane = LOCAL_ID%32;
    const real4* upper = x+(lane/4)*stride+lane%4;
    const real4* lower = upper+8*stride;
    weights += (lane%4)*outputs+lane/4;
    // Asked for while the quarters before are multiplied.
    real4 next[TILES], nextUpper = upper[begin], nextLower = lower[begin];
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        next[t] = weights[begin*outputs+8*t];
        sums[t][0] = sums[t][1] = sums[t][2] = sums[t][3] = 0;
    }
#pragma unroll 1
    for (int k = begin; k < end; k += 4) {
        real4 taken[TILES];
        const real rows[8] = {nextUpper.x, nextLower.x, nextUpper.y, nextLower.y, nextUpper.z, nextLower.z,
            nextUpper.w, nextLower.w};
        const int then = (k+4 < end ? k+4 : begin);
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            taken[t] = next[t];
            next[t] = weights[then*outputs+8*t];
        }
        nextUpper = upper[then];
        nextLower = lower[then];
        TwoParts a[8];
#pragma unroll
        for (int i = 0; i < 8; i++)
            a[i] = inTwoParts(rows[i]);
        // The device's own has all bits set, of which the sum above makes a zero.
#pragma unroll
        for (int i = 0; i < 8; i++)
            a[i].high = (rows[i] == rows[i] ? a[i].high : 0x7fffe000);
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            const TwoParts b0 = inTwoParts(taken[t].x), b1 = inTwoParts(taken[t].y), b2 = inTwoParts(taken[t].z),
                b3 = inTwoParts(taken[t].w);
            real part[4] = {0, 0, 0, 0};
            addProduct(part, a[0].low, a[1].low, a[2].low, a[3].low, b0.high, b1.high);
            addProduct(part, a[4].low, a[5].low, a[6].low, a[7].low, b2.high, b3.high);
            addProduct(part, a[0].high, a[1].high, a[2].high, a[3].high, b0.low, b1.low);
            addProduct(part, a[4].high, a[5].high, a[6].high, a[7].high, b2.low, b3.low);
            addProduct(part, a[0].high, a[1].high, a[2].high, a[3].high, b0.high, b1.high);
            addProduct(part, a[4].high, a[5].high, a[6].high, a[7].high, b2.high, b3.high);
#pragma unroll
            for (int i = 0; i < 4; i++)
                sums[t][i] += part[i];
        }
    }
}

/**
 * Tiles of outputs for a warp, at most six: as few rounds of all warps as there can be, and of these as many tiles.
 */
DEVICE constexpr int tilesOfWarp(int tiles, int most) {
    int best = 1, least = 1 << 30;
    for (int t = 1; t <= most; t++)
        if (tiles%t == 0) {
            const int tasks = tiles/t, cost = (2*tasks <= WARPS ? t+2 : 2*(t+2)*((tasks+WARPS-1)/WARPS));
            if (cost <= least) {
                least = cost;
                best = t;
            }
        }
    return best;
}

#define FORWARD_TO_VALUES 0
#define BACK_TO_VALUES 1
#define BACK_TO_SLOPES 2

/**
 * Rows times a matrix, and what is made of them: values of the next layer, gradients in those of the layer before
 * (`to`, in local memory, holds its values), or in the symmetry functions (in `count` rows of OUTPUTS numbers).
 * With room for it two warps take one half of the inputs each. parts: 16*OUTPUTS numbers.
 */
template <int OUTPUTS, int KIND>
DEVICE void tensorLayer(const real4* RESTRICT x, const int stride, int inputs, const real4* RESTRICT weights,
        const real* RESTRICT biases, real* to, real* parts, int count) {
    constexpr int TILES = tilesOfWarp(OUTPUTS/8, 6), TASKS = OUTPUTS/8/TILES;
    constexpr int SHARES = (KIND != BACK_TO_SLOPES && 2*TASKS <= WARPS ? 2 : 1);
    const int lane = LOCAL_ID%32, warp = LOCAL_ID/32, share = warp/(WARPS/SHARES), quarters = inputs/4;
    const int middle = (quarters/4+1)/2*4, begin = (share == 0 ? 0 : middle),
        end = (SHARES == 2 && share == 0 ? middle : quarters);
    for (int base = 0; base < TASKS; base += WARPS/SHARES) {
        const int task = base+warp%(WARPS/SHARES), first = task*8*TILES;
        real sums[TILES][4];
        if (task < TASKS)
            multiplyTiles<TILES>(x, stride, begin, end, weights+first, OUTPUTS, sums);
        if (SHARES == 2) {
            real* place = parts+first*16+lane;
            if (task < TASKS && share == 1)
#pragma unroll
                for (int i = 0; i < 4*TILES; i++)
                    place[32*i] = sums[i/4][i%4];
            SYNC_THREADS;
            if (task < TASKS && share == 0)
#pragma unroll
                for (int i = 0; i < 4*TILES; i++)
                    sums[i/4][i%4] += place[32*i];
        }
        if (task < TASKS && share == 0)
#pragma unroll
            for (int i = 0; i < 2*TILES; i++) {
                const int row = lane/4+8*(i%2), column = first+8*(i/2)+2*(lane%4);
                real2* place = (real2*) (to+row*OUTPUTS+column);
                real2 sum = make_real2(sums[i/2][2*(i%2)], sums[i/2][2*(i%2)+1]);
                if (KIND == FORWARD_TO_VALUES)
                    *place = make_real2(celu(biases[column]+sum.x), celu(biases[column+1]+sum.y));
                else if (KIND == BACK_TO_VALUES) {
                    const real2 value = *place;
                    *place = make_real2(slopeOf(value.x)*sum.x, slopeOf(value.y)*sum.y);
                }
                else if (row < count)
                    *place = sum;
            }
    }
    SYNC_THREADS;
}

#define FIRST_LAYER(INPUTS, OUTPUTS, COLUMNS, SHARES, WEIGHTS, BIASES) \
    tensorLayer<OUTPUTS, FORWARD_TO_VALUES>(functions4+first*(INPUTS/4), INPUTS/4, INPUTS, \
        weights4+(WEIGHTS+place*(INPUTS*OUTPUTS))/4, weights+BIASES+place*OUTPUTS, values, parts, ROWS);

#define FORWARD(K, INPUTS, OUTPUTS, COLUMNS, SHARES, WEIGHTS, BIASES, BEFORE) \
    tensorLayer<OUTPUTS, FORWARD_TO_VALUES>(values4+ROWS*(BEFORE-INPUTS)/4, INPUTS/4, widths[element*HIDDEN+K-1], \
        weights4+(WEIGHTS+place*(INPUTS*OUTPUTS))/4, weights+BIASES+place*OUTPUTS, values+ROWS*BEFORE, parts, ROWS);

#define BACKWARD(K, INPUTS, OUTPUTS, COLUMNS, SHARES, TRANSPOSED, BEFORE) \
    tensorLayer<INPUTS, BACK_TO_VALUES>(values4+ROWS*(BEFORE+INPUTS)/4, OUTPUTS/4, widths[element*HIDDEN+K], \
        weights4+(TRANSPOSED+place*(INPUTS*OUTPUTS))/4, 0, values+ROWS*BEFORE, parts, ROWS);

#define FIRST_LAYER_BACK(INPUTS, OUTPUTS, COLUMNS, SHARES, TRANSPOSED) \
    tensorLayer<INPUTS, BACK_TO_SLOPES>(values4, OUTPUTS/4, widths[element*HIDDEN], \
        weights4+(TRANSPOSED+place*(INPUTS*OUTPUTS))/4, 0, slopes+(member*NUM_CENTRES+first)*INPUTS, parts, rows);

#endif

)KERNEL";
