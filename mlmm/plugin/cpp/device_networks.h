// Device code of the networks, in OpenMM's common dialect: all layers of all members, forward and back, in one kernel.
//
// A group of threads takes a tile, up to ROWS atoms of one element, and one member. Weights lie in quarters, four
// inputs of one output after the other, and outputs in blocks of 32, the lanes of a warp. A warp takes PART_ROWS of the
// rows, some blocks of the outputs and a share of the inputs; the sums of the shares are added in a fixed order.
// CELU with alpha = 0.1: its slope follows from its value.
#pragma once

// A layer stands in a program twice, once for each kind of memory that its inputs lie in.
static const char* const kDeviceLayerOfFunctions = R"KERNEL(
#define MULTIPLY multiplyFunctions
#define LAYER layerOfFunctions
#define INPUTS_IN GLOBAL
)KERNEL";

static const char* const kDeviceLayerOfRows = R"KERNEL(
#undef MULTIPLY
#undef LAYER
#undef INPUTS_IN
#define MULTIPLY multiplyRows
#define LAYER layerOfRows
#define INPUTS_IN LOCAL_ARG
)KERNEL";

static const char* const kDeviceLayer = R"KERNEL(

/**
 * For quarters `begin` to `end` of the inputs, all PART_ROWS rows and some blocks of outputs: sums of this thread.
 * x: rows of `stride` quarters. weights: of this lane in the first block.
 */
DEVICE void MULTIPLY(INPUTS_IN const real4* RESTRICT x, const int stride, int begin, int end,
        GLOBAL const real4* RESTRICT weights, const int outputs, const int columns, real* sums) {
#pragma unroll
    for (int i = 0; i < PART_ROWS*columns; i++)
        sums[i] = 0;
#pragma unroll 1
    for (int k = begin; k < end; k += STEPS) {
        real4 taken[STEPS*MOST_COLUMNS];
#pragma unroll
        for (int u = 0; u < STEPS; u++)
#pragma unroll
            for (int c = 0; c < columns; c++)
                taken[u*columns+c] = (k+u < end ? weights[(k+u)*outputs+32*c] : make_real4(0, 0, 0, 0));
#pragma unroll
        for (int u = 0; u < STEPS; u++) {
            int q = (k+u < end ? k+u : k);
#pragma unroll
            for (int r = 0; r < PART_ROWS; r++) {
                real4 v = x[r*stride+q];
#pragma unroll
                for (int c = 0; c < columns; c++) {
                    real4 w = taken[u*columns+c];
                    real sum = sums[r*columns+c];
                    sum += v.x*w.x; sum += v.y*w.y; sum += v.z*w.z; sum += v.w*w.w;
                    sums[r*columns+c] = sum;
                }
            }
        }
    }
}

/**
 * Rows times a matrix; at its end the sums of the shares are in `parts`, (slots, blocks of 32 outputs, rows, 32), and
 * with one share they go to `to` instead, if there is such a place: `count` rows of `outputs` numbers.
 */
DEVICE void LAYER(INPUTS_IN const real4* RESTRICT x, const int stride, int inputs, const int outputs, const int columns,
        const int shares, GLOBAL const real4* RESTRICT weights, LOCAL_ARG real* parts, GLOBAL real* RESTRICT to,
        int count) {
    const int lane = LOCAL_ID%32, blocks = outputs/32/columns, partsOfRows = ROWS/PART_ROWS, slots = SLOTS(shares);
    const int quarters = inputs/4, share = (quarters+shares-1)/shares, tasks = blocks*partsOfRows*shares;
    // With several shares there is one task, at most, for each warp.
    for (int base = 0; base < tasks; base += WARPS) {
        const int task = base+LOCAL_ID/32, s = task/(blocks*partsOfRows), rest = task-s*blocks*partsOfRows;
        const int rowPart = rest/blocks, first = (rest-rowPart*blocks)*columns;
        const int slot = (s < slots ? s : s-slots);
        LOCAL_ARG real* sum = parts+((slot*(outputs/32)+first)*ROWS+rowPart*PART_ROWS)*32+lane;
        real sums[PART_ROWS*MOST_COLUMNS];
        if (task < tasks)
            MULTIPLY(x+rowPart*PART_ROWS*stride, stride, s*share, ((s+1)*share < quarters ? (s+1)*share : quarters),
                weights+32*first+lane, outputs, columns, sums);
        if (shares > 1) {
            if (task < tasks && s >= slots)
#pragma unroll
                for (int c = 0; c < columns; c++)
#pragma unroll
                    for (int r = 0; r < PART_ROWS; r++)
                        sum[(c*ROWS+r)*32] = sums[r*columns+c];
            SYNC_THREADS;
        }
        if (task < tasks && s < slots) {
            if (shares == 1 && to != 0) {
#pragma unroll
                for (int r = 0; r < PART_ROWS; r++)
                    if (rowPart*PART_ROWS+r < count)
#pragma unroll
                        for (int c = 0; c < columns; c++)
                            to[(rowPart*PART_ROWS+r)*outputs+(first+c)*32+lane] = sums[r*columns+c];
            }
            else {
#pragma unroll
                for (int c = 0; c < columns; c++)
#pragma unroll
                    for (int r = 0; r < PART_ROWS; r++)
                        sum[(c*ROWS+r)*32] = sums[r*columns+c]+(s+slots < shares ? sum[(c*ROWS+r)*32] : (real) 0);
            }
        }
    }
    SYNC_THREADS;
}

)KERNEL";

// It stands before the two.
static const char* const kDeviceTiles = R"KERNEL(

#define WARPS (NETWORK_GROUP/32)
// Places for sums of shares: each is that of two of them.
#define SLOTS(SHARES) (((SHARES)+1)/2)
// Registers are shared out so that 512 threads are under way at a time.
#if defined(__CUDA_ARCH__)
#define SIDE_BY_SIDE __launch_bounds__(NETWORK_GROUP, 512/NETWORK_GROUP)
#else
#define SIDE_BY_SIDE AT_MOST(NETWORK_GROUP)
#endif

DEVICE real celu(real x) {
    return (x > 0 ? x : NUMBER(0.1)*(exponential(10*x)-1));
}

DEVICE real slopeOf(real value) {
    return (value > 0 ? (real) 1 : 1+10*value);
}

/**
 * Of one row and output, from `parts` of a layer.
 */
DEVICE real sumOfShares(LOCAL_ARG const real* parts, const int outputs, const int shares, int row, int column) {
    real sum = 0;
#pragma unroll
    for (int s = 0; s < SLOTS(shares); s++)
        sum += parts[((s*(outputs/32)+column/32)*ROWS+row)*32+column%32];
    return sum;
}

)KERNEL";

static const char* const kDeviceNetworks = R"KERNEL(

// Layers of the compiled program: inputs and outputs, blocks of outputs for a warp, shares, places of weights (or of
// the transposed ones) and biases, and what stands before the outputs, or inputs, in local memory, in numbers of each
// row. WIDTH: that of the inputs, of this element.
#ifndef TENSOR_CORES
#define FORWARD_FROM(MULTIPLIED, X, STRIDE, INPUTS, WIDTH, OUTPUTS, COLUMNS, SHARES, WEIGHTS, BIASES, BEFORE) \
    MULTIPLIED(X, STRIDE, WIDTH, OUTPUTS, COLUMNS, SHARES, weights4+(WEIGHTS+place*(INPUTS*OUTPUTS))/4, parts, 0, 0); \
    for (int i = LOCAL_ID; i < ROWS*OUTPUTS; i += NETWORK_GROUP) \
        values[ROWS*BEFORE+i] = celu(weights[BIASES+place*OUTPUTS+i%OUTPUTS]+ \
            sumOfShares(parts, OUTPUTS, SHARES, i/OUTPUTS, i%OUTPUTS)); \
    SYNC_THREADS;

#define FIRST_LAYER(INPUTS, OUTPUTS, COLUMNS, SHARES, WEIGHTS, BIASES) \
    FORWARD_FROM(layerOfFunctions, functions4+first*(INPUTS/4), INPUTS/4, INPUTS, INPUTS, OUTPUTS, COLUMNS, SHARES, \
        WEIGHTS, BIASES, 0)

#define FORWARD(K, INPUTS, OUTPUTS, COLUMNS, SHARES, WEIGHTS, BIASES, BEFORE) \
    FORWARD_FROM(layerOfRows, values4+ROWS*(BEFORE-INPUTS)/4, INPUTS/4, INPUTS, widths[element*HIDDEN+K-1], \
        OUTPUTS, COLUMNS, SHARES, WEIGHTS, BIASES, BEFORE)

#define BACKWARD(K, INPUTS, OUTPUTS, COLUMNS, SHARES, TRANSPOSED, BEFORE) \
    layerOfRows(values4+ROWS*(BEFORE+INPUTS)/4, OUTPUTS/4, widths[element*HIDDEN+K], INPUTS, COLUMNS, SHARES, \
        weights4+(TRANSPOSED+place*(INPUTS*OUTPUTS))/4, parts, 0, 0); \
    for (int i = LOCAL_ID; i < ROWS*INPUTS; i += NETWORK_GROUP) \
        values[ROWS*BEFORE+i] = slopeOf(values[ROWS*BEFORE+i])*sumOfShares(parts, INPUTS, SHARES, i/INPUTS, i%INPUTS); \
    SYNC_THREADS;

#define FIRST_LAYER_BACK(INPUTS, OUTPUTS, COLUMNS, SHARES, TRANSPOSED) \
    layerOfRows(values4, OUTPUTS/4, widths[element*HIDDEN], INPUTS, COLUMNS, SHARES, \
        weights4+(TRANSPOSED+place*(INPUTS*OUTPUTS))/4, parts, slopes+(member*NUM_CENTRES+first)*INPUTS, rows); \
    if (SHARES > 1) \
        for (int i = LOCAL_ID; i < rows*INPUTS; i += NETWORK_GROUP) \
            slopes[(member*NUM_CENTRES+first)*INPUTS+i] = sumOfShares(parts, INPUTS, SHARES, i/INPUTS, i%INPUTS);
#endif

/**
 * Energies of all rows by each member, and the gradients in their symmetry functions.
 * last: weights and bias of the last layer. widths: of the hidden layers of each element.
 */
KERNEL SIDE_BY_SIDE void evaluateNetworks(int includeForces, int includeEnergy, GLOBAL const int* RESTRICT tiles,
        GLOBAL const int* RESTRICT widths, GLOBAL const real* RESTRICT weights, GLOBAL const real* RESTRICT last,
        GLOBAL const real* RESTRICT rowWeights, GLOBAL const real* RESTRICT functions, GLOBAL real* RESTRICT slopes,
        GLOBAL real* RESTRICT energies, GLOBAL int* RESTRICT status, GLOBAL mixed* RESTRICT energyBuffer
        ROW_COUNTS_ARGUMENT) {
    LOCAL real4 values4[ROWS*ALL_WIDTHS/4];
    LOCAL real parts[PARTS];
    LOCAL real rowEnergies[ROWS];
    LOCAL_ARG real* values = (LOCAL_ARG real*) values4;
    GLOBAL const real4* RESTRICT weights4 = (GLOBAL const real4*) weights;
    GLOBAL const real4* RESTRICT functions4 = (GLOBAL const real4*) functions;
    for (int task = GROUP_ID; task < TILE_COUNT*MEMBERS; task += NUM_GROUPS) {
        const int member = task%MEMBERS, tile = task/MEMBERS;
        const int element = tiles[3*tile], first = tiles[3*tile+1], rows = tiles[3*tile+2];
        const int place = element*MEMBERS+member;
        FORWARD_LAYERS
        GLOBAL const real* RESTRICT lastWeights = last+place*(WIDTH_LAST+1);
        for (int i = LOCAL_ID; i < ROWS*32; i += NETWORK_GROUP) {
            real sum = 0;
            for (int c = i%32; c < WIDTH_LAST; c += 32)
                sum += values[ROWS*LAST_BEFORE+(i/32)*WIDTH_LAST+c]*lastWeights[c];
            parts[i] = sum;
        }
        SYNC_THREADS;
        if (LOCAL_ID < ROWS) {
            real sum = lastWeights[WIDTH_LAST];
#pragma unroll
            for (int c = 0; c < 32; c++)
                sum += parts[LOCAL_ID*32+c];
            rowEnergies[LOCAL_ID] = sum;
            if (LOCAL_ID < rows) {
                energies[member*NUM_CENTRES+first+LOCAL_ID] = ENERGY*sum;
                if (isNoNumber(sum) || fabs(sum) > NUMBER(1e12))
                    status[0] = 1;
            }
        }
        SYNC_THREADS;
        if (includeEnergy && LOCAL_ID == 0) {
            mixed total = 0;
            for (int r = 0; r < rows; r++)
                total += (mixed) rowEnergies[r]*rowWeights[first+r];
            energyBuffer[GROUP_ID] += total;
        }
        // Not a block of its own: PoCL 3.1 loses code around barriers under a condition.
        if (!includeForces)
            continue;
        for (int i = LOCAL_ID; i < ROWS*WIDTH_LAST; i += NETWORK_GROUP) {
            int r = i/WIDTH_LAST, c = i%WIDTH_LAST;
            real value = values[ROWS*LAST_BEFORE+i];
            values[ROWS*LAST_BEFORE+i] = (r < rows ? slopeOf(value)*lastWeights[c]*rowWeights[first+r] : (real) 0);
        }
        SYNC_THREADS;
        BACKWARD_LAYERS
        SYNC_THREADS;
    }
}

)KERNEL";
