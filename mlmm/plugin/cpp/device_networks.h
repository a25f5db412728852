// Device code of the networks, in OpenMM's common dialect: all layers of all members, forward and back.
//
// Rows are centres, sorted by element; a tile is up to ROWS of one element, a large one, for the first layer with its
// many weights, up to TILE_ROWS. Weights lie in columns of 32, the lanes of a warp; the warps of a group of threads
// share the inputs, and their sums are added in a fixed order.
// CELU with alpha = 0.1: its slope follows from its value.
#pragma once

static const char* const kDeviceNetworks = R"KERNEL(

#define WARPS (NETWORK_GROUP/32)
#define OTHER_WARPS (OTHERS_GROUP/32)
// Registers are shared out so that several groups are under way at a time.
#if defined(__CUDA_ARCH__) && OTHERS_GROUP == 256
#define SIDE_BY_SIDE __launch_bounds__(OTHERS_GROUP, 3)
#else
#define SIDE_BY_SIDE
#endif
// Of a layer with so many outputs: what a warp takes, OTHER_COLUMNS blocks of 32; shares of the inputs. OTHER_STEPS and
// TILE_STEPS are quarters (four inputs) whose weights are fetched together: what a warp waits for is memory.
#define BLOCKS_OF(OUTPUTS) (((OUTPUTS)/32+OTHER_COLUMNS-1)/OTHER_COLUMNS)
#define SHARES_OF(OUTPUTS) (BLOCKS_OF(OUTPUTS) < OTHER_WARPS ? OTHER_WARPS/BLOCKS_OF(OUTPUTS) : 1)

DEVICE real celu(real x) {
    return (x > 0 ? x : NUMBER(0.1)*(EXP(10*x)-1));
}

DEVICE real slopeOf(real value) {
    return (value > 0 ? (real) 1 : 1+10*value);
}

/**
 * Rows in local memory times a matrix (inputs, outputs): sums of the shares of the inputs, biases in the first one.
 */
DEVICE void multiplyRows(LOCAL_ARG const real4* x, const int inputs, const int outputs,
        GLOBAL const real* RESTRICT weights, GLOBAL const real* RESTRICT biases, const int biased,
        LOCAL_ARG real* parts) {
    const int lane = LOCAL_ID%32, blocks = BLOCKS_OF(outputs), quarters = inputs/4;
    const int shares = SHARES_OF(outputs);
    const int share = (quarters+shares-1)/shares;
    for (int task = LOCAL_ID/32; task < blocks*shares; task += OTHER_WARPS) {
        int s = task/blocks, first = (task-s*blocks)*OTHER_COLUMNS;
        int end = ((s+1)*share < quarters ? (s+1)*share : quarters);
        int column[OTHER_COLUMNS];
        real sums[ROWS*OTHER_COLUMNS];
#pragma unroll
        for (int c = 0; c < OTHER_COLUMNS; c++) {
            column[c] = (first+c < outputs/32 ? first+c : first)*32+lane;
            real bias = (biased && s == 0 ? biases[column[c]] : (real) 0);
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                sums[r*OTHER_COLUMNS+c] = bias;
        }
#pragma unroll 1
        for (int k = s*share; k < end; k += OTHER_STEPS) {
            real taken[4*OTHER_STEPS*OTHER_COLUMNS];
#pragma unroll
            for (int u = 0; u < OTHER_STEPS; u++) {
                GLOBAL const real* RESTRICT from = weights+4*(k+u < end ? k+u : k)*outputs;
#pragma unroll
                for (int m = 0; m < 4; m++)
#pragma unroll
                    for (int c = 0; c < OTHER_COLUMNS; c++)
                        taken[(4*u+m)*OTHER_COLUMNS+c] = (k+u < end ? from[m*outputs+column[c]] : (real) 0);
            }
#pragma unroll
            for (int u = 0; u < OTHER_STEPS; u++) {
                int q = (k+u < end ? k+u : k);
                const int t = 4*u*OTHER_COLUMNS;
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    real4 v = x[r*quarters+q];
#pragma unroll
                    for (int c = 0; c < OTHER_COLUMNS; c++)
                        sums[r*OTHER_COLUMNS+c] += v.x*taken[t+c]+v.y*taken[t+OTHER_COLUMNS+c]
                            +v.z*taken[t+2*OTHER_COLUMNS+c]+v.w*taken[t+3*OTHER_COLUMNS+c];
                }
            }
        }
#pragma unroll
        for (int c = 0; c < OTHER_COLUMNS; c++)
            if (first+c < outputs/32)
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    parts[((s*(outputs/32)+first+c)*ROWS+r)*32+lane] = sums[r*OTHER_COLUMNS+c];
    }
}

DEVICE real sumOfShares(LOCAL_ARG const real* parts, const int outputs, int row, int column) {
    const int shares = SHARES_OF(outputs);
    real sum = 0;
#pragma unroll
    for (int s = 0; s < shares; s++)
        sum += parts[((s*(outputs/32)+column/32)*ROWS+row)*32+column%32];
    return sum;
}

// Layers of the compiled program: widths, places of weights (or of the transposed ones) and biases, and what stands
// before the values of the inputs in local memory, in numbers of each row.
#define FORWARD(INPUTS, OUTPUTS, WEIGHTS, BIASES, BEFORE) \
    multiplyRows(values4+ROWS*(BEFORE)/4, INPUTS, OUTPUTS, weights+WEIGHTS+place*(INPUTS*OUTPUTS), \
        weights+BIASES+place*OUTPUTS, 1, parts); \
    SYNC_THREADS; \
    for (int i = LOCAL_ID; i < ROWS*OUTPUTS; i += OTHERS_GROUP) \
        values[ROWS*(BEFORE+INPUTS)+i] = celu(sumOfShares(parts, OUTPUTS, i/OUTPUTS, i%OUTPUTS)); \
    SYNC_THREADS;

#define BACKWARD(INPUTS, OUTPUTS, TRANSPOSED, BEFORE) \
    multiplyRows(values4+ROWS*(BEFORE+INPUTS)/4, OUTPUTS, INPUTS, weights+TRANSPOSED+place*(INPUTS*OUTPUTS), \
        weights, 0, parts); \
    SYNC_THREADS; \
    for (int i = LOCAL_ID; i < ROWS*INPUTS; i += OTHERS_GROUP) \
        values[ROWS*(BEFORE)+i] = slopeOf(values[ROWS*(BEFORE)+i])*sumOfShares(parts, INPUTS, i/INPUTS, i%INPUTS); \
    SYNC_THREADS;

/**
 * Rows in global memory (rows of `stride`) times a matrix with rows of `width`, in `columns` blocks of 32 columns from
 * `first` on: each of WARPS takes a share of the inputs. A row beyond `rows` repeats the first.
 */
DEVICE void multiplyTile(GLOBAL const real* RESTRICT x, int rows, const int stride, GLOBAL const real* RESTRICT weights,
        int inputs, int first, const int columns, const int width, LOCAL_ARG real* parts) {
    const int lane = LOCAL_ID%32, warp = LOCAL_ID/32, quarters = inputs/4;
    const int share = (quarters+WARPS-1)/WARPS;
    const int end = ((warp+1)*share < quarters ? (warp+1)*share : quarters);
    GLOBAL const real4* RESTRICT x4 = (GLOBAL const real4*) x;
    real sums[TILE_ROWS*MOST_COLUMNS];
#pragma unroll
    for (int i = 0; i < TILE_ROWS*MOST_COLUMNS; i++)
        sums[i] = 0;
    for (int k = warp*share; k < end; k += TILE_STEPS) {
        real taken[4*TILE_STEPS*MOST_COLUMNS];
#pragma unroll
        for (int u = 0; u < TILE_STEPS; u++) {
            GLOBAL const real* RESTRICT from = weights+4*(k+u < end ? k+u : k)*width+lane;
#pragma unroll
            for (int m = 0; m < 4; m++)
#pragma unroll
                for (int c = 0; c < columns; c++) {
                    int column = (first+32*c < width ? first+32*c : first);
                    taken[(4*u+m)*MOST_COLUMNS+c] = (k+u < end ? from[m*width+column] : (real) 0);
                }
        }
#pragma unroll
        for (int u = 0; u < TILE_STEPS; u++) {
            int q = (k+u < end ? k+u : k);
#pragma unroll
            for (int r = 0; r < TILE_ROWS; r++) {
                real4 v = x4[(r < rows ? r : 0)*(stride/4)+q];
#pragma unroll
                for (int c = 0; c < columns; c++)
                    sums[r*MOST_COLUMNS+c] += v.x*taken[4*u*MOST_COLUMNS+c]+v.y*taken[(4*u+1)*MOST_COLUMNS+c]
                        +v.z*taken[(4*u+2)*MOST_COLUMNS+c]+v.w*taken[(4*u+3)*MOST_COLUMNS+c];
            }
        }
    }
#pragma unroll
    for (int r = 0; r < TILE_ROWS; r++)
#pragma unroll
        for (int c = 0; c < columns; c++)
            parts[((warp*TILE_ROWS+r)*columns+c)*32+lane] = sums[r*MOST_COLUMNS+c];
}

/**
 * The sum of all shares for one row and a column within the blocks.
 */
DEVICE real sumOfTile(LOCAL_ARG const real* parts, const int columns, int row, int column) {
    real sum = 0;
#pragma unroll
    for (int s = 0; s < WARPS; s++)
        sum += parts[((s*TILE_ROWS+row)*columns+column/32)*32+column%32];
    return sum;
}

/**
 * Symmetry functions to the first hidden layer.
 */
KERNEL void firstLayer(GLOBAL const int* RESTRICT tiles, GLOBAL const int* RESTRICT widths,
    GLOBAL const real* RESTRICT weights,
        GLOBAL const real* RESTRICT biases, GLOBAL const real* RESTRICT functions, GLOBAL real* RESTRICT hidden
        ROW_COUNTS_ARGUMENT) {
    LOCAL real parts[WARPS*TILE_ROWS*FIRST_COLUMNS*32];
    const int blocks = (WIDTH_0+32*FIRST_COLUMNS-1)/(32*FIRST_COLUMNS);
    for (int task = GROUP_ID; task < LARGE_TILE_COUNT*MEMBERS*blocks; task += NUM_GROUPS) {
        int block = task%blocks, member = (task/blocks)%MEMBERS, tile = task/(blocks*MEMBERS);
        int element = tiles[3*tile], first = tiles[3*tile+1], rows = tiles[3*tile+2];
        int column = block*32*FIRST_COLUMNS, place = element*MEMBERS+member;
        int columns = widths[element*HIDDEN]-column;
        // The same for the whole group.
        if (columns > 0)
            multiplyTile(functions+first*FUNCTIONS, rows, FUNCTIONS, weights+place*FUNCTIONS*WIDTH_0, FUNCTIONS, column,
                FIRST_COLUMNS, WIDTH_0, parts);
        SYNC_THREADS;
        for (int i = LOCAL_ID; i < rows*32*FIRST_COLUMNS; i += NETWORK_GROUP) {
            int r = i/(32*FIRST_COLUMNS), c = i%(32*FIRST_COLUMNS);
            if (column+c < WIDTH_0)
                hidden[(member*NUM_CENTRES+first+r)*WIDTH_0+column+c] = (c < columns ?
                    celu(biases[place*WIDTH_0+column+c]+sumOfTile(parts, FIRST_COLUMNS, r, c)) : (real) 0);
        }
        SYNC_THREADS;
    }
}

/**
 * The other layers, the energies, and the way back to the gradient in the first hidden layer, which takes its
 * place.
 * last: weights and bias.
 */
KERNEL SIDE_BY_SIDE void otherLayers(int includeForces, int includeEnergy, GLOBAL const int* RESTRICT tiles,
        GLOBAL const real* RESTRICT weights, GLOBAL const real* RESTRICT last,
        GLOBAL const real* RESTRICT rowWeights, GLOBAL real* RESTRICT hidden, GLOBAL real* RESTRICT energies,
        GLOBAL int* RESTRICT status, GLOBAL mixed* RESTRICT energyBuffer ROW_COUNTS_ARGUMENT) {
    LOCAL real4 values4[ROWS*ALL_WIDTHS/4];
    LOCAL real parts[MOST_PARTS*ROWS*32];
    LOCAL real rowEnergies[ROWS];
    LOCAL_ARG real* values = (LOCAL_ARG real*) values4;
    for (int task = GROUP_ID; task < TILE_COUNT*MEMBERS; task += NUM_GROUPS) {
        int member = task%MEMBERS, tile = task/MEMBERS;
        int element = tiles[3*tile], first = tiles[3*tile+1], rows = tiles[3*tile+2];
        int place = element*MEMBERS+member;
        for (int i = LOCAL_ID; i < ROWS*WIDTH_0; i += OTHERS_GROUP) {
            int r = i/WIDTH_0, c = i%WIDTH_0;
            values[i] = (r < rows ? hidden[(member*NUM_CENTRES+first+r)*WIDTH_0+c] : (real) 0);
        }
        SYNC_THREADS;
        FORWARD_LAYERS
        GLOBAL const real* RESTRICT lastWeights = last+place*(WIDTH_LAST+1);
        for (int i = LOCAL_ID; i < ROWS*32; i += OTHERS_GROUP) {
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
                if (!(sum > -NUMBER(1e12) && sum < NUMBER(1e12)))
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
        if (includeForces) {
            for (int i = LOCAL_ID; i < ROWS*WIDTH_LAST; i += OTHERS_GROUP) {
                int r = i/WIDTH_LAST, c = i%WIDTH_LAST;
                real value = values[ROWS*LAST_BEFORE+r*WIDTH_LAST+c];
                real slope = (r < rows ? slopeOf(value)*lastWeights[c]*rowWeights[first+r] : (real) 0);
                values[ROWS*LAST_BEFORE+r*WIDTH_LAST+c] = slope;
            }
            SYNC_THREADS;
            BACKWARD_LAYERS
            for (int i = LOCAL_ID; i < ROWS*WIDTH_0; i += OTHERS_GROUP) {
                int r = i/WIDTH_0, c = i%WIDTH_0;
                if (r < rows)
                    hidden[(member*NUM_CENTRES+first+r)*WIDTH_0+c] = values[i];
            }
        }
        SYNC_THREADS;
    }
}

/**
 * From the gradients in the first hidden layer to those in the symmetry functions, of each member.
 */
KERNEL void firstLayerBack(GLOBAL const int* RESTRICT tiles, GLOBAL const int* RESTRICT widths,
    GLOBAL const real* RESTRICT transposed,
        GLOBAL const real* RESTRICT hidden, GLOBAL real* RESTRICT slopes ROW_COUNTS_ARGUMENT) {
    LOCAL real parts[WARPS*TILE_ROWS*BACK_COLUMNS*32];
    const int blocks = (FUNCTIONS+32*BACK_COLUMNS-1)/(32*BACK_COLUMNS);
    for (int task = GROUP_ID; task < LARGE_TILE_COUNT*MEMBERS*blocks; task += NUM_GROUPS) {
        int block = task%blocks, member = (task/blocks)%MEMBERS, tile = task/(blocks*MEMBERS);
        int element = tiles[3*tile], first = tiles[3*tile+1], rows = tiles[3*tile+2];
        int column = block*32*BACK_COLUMNS, start = member*NUM_CENTRES+first;
        multiplyTile(hidden+start*WIDTH_0, rows, WIDTH_0, transposed+(element*MEMBERS+member)*WIDTH_0*FUNCTIONS,
            widths[element*HIDDEN], column, BACK_COLUMNS, FUNCTIONS, parts);
        SYNC_THREADS;
        for (int i = LOCAL_ID; i < rows*32*BACK_COLUMNS; i += NETWORK_GROUP) {
            int r = i/(32*BACK_COLUMNS), c = i%(32*BACK_COLUMNS);
            if (column+c < FUNCTIONS)
                slopes[(start+r)*FUNCTIONS+column+c] = sumOfTile(parts, BACK_COLUMNS, r, c);
        }
        SYNC_THREADS;
    }
}

)KERNEL";
