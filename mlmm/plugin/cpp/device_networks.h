// Device code of the networks, in OpenMM's common dialect: all layers of all members, forward and back.
//
// Rows are centres, sorted by element; a tile is up to ROWS of one element. Weights lie in columns of 32, the lanes
// of a group of threads; NETWORK_GROUP/32 of them share the inputs, and their sums are added in a fixed order.
// CELU with alpha = 0.1: its slope follows from its value.
#pragma once

static const char* const kDeviceNetworks = R"KERNEL(

#define WARPS (NETWORK_GROUP/32)

DEVICE real celu(real x) {
    return (x > 0 ? x : NUMBER(0.1)*(EXP(10*x)-1));
}

DEVICE real slopeOf(real value) {
    return (value > 0 ? (real) 1 : 1+10*value);
}

// Four inputs of all rows times their weights in one column.
#define MULTIPLY(X, WEIGHTS, WIDTH) { \
    real w0 = (WEIGHTS)[0], w1 = (WEIGHTS)[WIDTH], w2 = (WEIGHTS)[2*(WIDTH)], w3 = (WEIGHTS)[3*(WIDTH)]; \
    for (int r = 0; r < ROWS; r++) { \
        real4 v = X; \
        sums[r] += v.x*w0+v.y*w1+v.z*w2+v.w*w3; \
    } \
}

/**
 * Rows in local memory (rows of `stride`) times a matrix (inputs, outputs in rows of `width`): sums of the shares
 * of the inputs.
 */
DEVICE void multiplyRows(LOCAL_ARG const real4* x, int stride, GLOBAL const real* RESTRICT weights, int inputs,
    int outputs, int width,
        LOCAL_ARG real* parts) {
    const int lane = LOCAL_ID%32, blocks = outputs/32;
    const int shares = (blocks < WARPS ? WARPS/blocks : 1);
    const int share = (inputs/4+shares-1)/shares;
    for (int task = LOCAL_ID/32; task < blocks*shares; task += WARPS) {
        int s = task/blocks, column = (task-s*blocks)*32+lane;
        int end = ((s+1)*share < inputs/4 ? (s+1)*share : inputs/4);
        real sums[ROWS];
        for (int r = 0; r < ROWS; r++)
            sums[r] = 0;
        for (int k = s*share; k < end; k++)
            MULTIPLY(x[r*(stride/4)+k], weights+4*k*width+column, width)
        for (int r = 0; r < ROWS; r++)
            parts[(task*ROWS+r)*32+lane] = sums[r];
    }
}

DEVICE real sumOfShares(LOCAL_ARG const real* parts, int outputs, int row, int column) {
    const int blocks = outputs/32;
    const int shares = (blocks < WARPS ? WARPS/blocks : 1);
    real sum = 0;
    for (int s = 0; s < shares; s++)
        sum += parts[((s*blocks+column/32)*ROWS+row)*32+column%32];
    return sum;
}

/**
 * Symmetry functions to the first hidden layer.
 */
KERNEL void firstLayer(GLOBAL const int* RESTRICT tiles, GLOBAL const int* RESTRICT widths,
    GLOBAL const real* RESTRICT weights,
        GLOBAL const real* RESTRICT biases, GLOBAL const real* RESTRICT functions, GLOBAL real* RESTRICT hidden) {
    LOCAL real parts[WARPS*ROWS*32];
    const int lane = LOCAL_ID%32, warp = LOCAL_ID/32, blocks = WIDTH_0/32;
    for (int task = GROUP_ID; task < NUM_TILES*MEMBERS*blocks; task += NUM_GROUPS) {
        int block = task%blocks, member = (task/blocks)%MEMBERS, tile = task/(blocks*MEMBERS);
        int element = tiles[3*tile], first = tiles[3*tile+1], rows = tiles[3*tile+2];
        int column = block*32+lane, place = element*MEMBERS+member;
        // The same for the whole group.
        int wanted = (block*32 < widths[element*HIDDEN]);
        if (wanted) {
            real sums[ROWS];
            for (int r = 0; r < ROWS; r++)
                sums[r] = 0;
            GLOBAL const real4* RESTRICT x = (GLOBAL const real4*) (functions+first*FUNCTIONS);
            GLOBAL const real* RESTRICT w = weights+place*FUNCTIONS*WIDTH_0+column;
            const int share = (FUNCTIONS/4+WARPS-1)/WARPS;
            int end = ((warp+1)*share < FUNCTIONS/4 ? (warp+1)*share : FUNCTIONS/4);
            for (int k = warp*share; k < end; k++)
                MULTIPLY(x[(r < rows ? r : 0)*(FUNCTIONS/4)+k], w+4*k*WIDTH_0, WIDTH_0)
            for (int r = 0; r < ROWS; r++)
                parts[(warp*ROWS+r)*32+lane] = sums[r];
        }
        SYNC_THREADS;
        if (wanted)
            for (int i = LOCAL_ID; i < rows*32; i += NETWORK_GROUP) {
                int r = i/32, c = i%32;
                real sum = biases[place*WIDTH_0+block*32+c];
                for (int s = 0; s < WARPS; s++)
                    sum += parts[(s*ROWS+r)*32+c];
                hidden[(member*NUM_CENTRES+first+r)*WIDTH_0+block*32+c] = celu(sum);
            }
        SYNC_THREADS;
    }
}

/**
 * The other layers, the energies, and the way back to the gradient in the first hidden layer, which takes its
 * place.
 * layers: (inputs, outputs, weights, transposed weights, biases) from the second on; last: weights and bias.
 */
KERNEL void otherLayers(int includeForces, GLOBAL const int* RESTRICT tiles, GLOBAL const int* RESTRICT widths,
        GLOBAL const int* RESTRICT layers, GLOBAL const real* RESTRICT weights, GLOBAL const real* RESTRICT last,
        GLOBAL const real* RESTRICT rowWeights, GLOBAL real* RESTRICT hidden, GLOBAL real* RESTRICT energies,
        GLOBAL int* RESTRICT status, GLOBAL mixed* RESTRICT energyBuffer) {
    LOCAL real4 values4[ROWS*ALL_WIDTHS/4];
    LOCAL real parts[MOST_TASKS*ROWS*32];
    LOCAL real rowEnergies[ROWS];
    LOCAL_ARG real* values = (LOCAL_ARG real*) values4;
    for (int task = GROUP_ID; task < NUM_TILES*MEMBERS; task += NUM_GROUPS) {
        int member = task%MEMBERS, tile = task/MEMBERS;
        int element = tiles[3*tile], first = tiles[3*tile+1], rows = tiles[3*tile+2];
        int place = element*MEMBERS+member;
        GLOBAL const int* RESTRICT width = widths+element*HIDDEN;
        for (int i = LOCAL_ID; i < ROWS*WIDTH_0; i += NETWORK_GROUP) {
            int r = i/WIDTH_0, c = i%WIDTH_0;
            values[i] = (r < rows && c < width[0] ? hidden[(member*NUM_CENTRES+first+r)*WIDTH_0+c] : (real) 0);
        }
        SYNC_THREADS;
        int offset = 0;
        for (int l = 1; l < HIDDEN; l++) {
            GLOBAL const int* RESTRICT layer = layers+5*(l-1);
            int inputs = layer[0], outputs = layer[1];
            multiplyRows(values4+offset/4, inputs, weights+layer[2]+place*inputs*outputs, width[l-1], width[l],
                outputs, parts);
            SYNC_THREADS;
            offset += ROWS*inputs;
            for (int i = LOCAL_ID; i < ROWS*width[l]; i += NETWORK_GROUP) {
                int r = i/width[l], c = i%width[l];
                real sum = weights[layer[4]+place*outputs+c]+sumOfShares(parts, width[l], r, c);
                values[offset+r*outputs+c] = celu(sum);
            }
            SYNC_THREADS;
        }
        GLOBAL const real* RESTRICT lastWeights = last+place*(WIDTH_LAST+1);
        for (int i = LOCAL_ID; i < ROWS*32; i += NETWORK_GROUP) {
            real sum = 0;
            for (int c = i%32; c < width[HIDDEN-1]; c += 32)
                sum += values[offset+(i/32)*WIDTH_LAST+c]*lastWeights[c];
            parts[i] = sum;
        }
        SYNC_THREADS;
        if (LOCAL_ID < ROWS) {
            real sum = lastWeights[WIDTH_LAST];
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
        if (LOCAL_ID == 0) {
            mixed total = 0;
            for (int r = 0; r < rows; r++)
                total += (mixed) rowEnergies[r]*rowWeights[first+r];
            energyBuffer[GROUP_ID] += total;
        }
        if (includeForces) {
            for (int i = LOCAL_ID; i < ROWS*width[HIDDEN-1]; i += NETWORK_GROUP) {
                int r = i/width[HIDDEN-1], c = i%width[HIDDEN-1];
                real value = values[offset+r*WIDTH_LAST+c];
                values[offset+r*WIDTH_LAST+c] = (r < rows ? slopeOf(value)*lastWeights[c]*rowWeights[first+r] :
                    (real) 0);
            }
            SYNC_THREADS;
            for (int l = HIDDEN-1; l > 0; l--) {
                GLOBAL const int* RESTRICT layer = layers+5*(l-1);
                int inputs = layer[0], outputs = layer[1];
                multiplyRows(values4+offset/4, outputs, weights+layer[3]+place*inputs*outputs, width[l],
                    width[l-1], inputs, parts);
                SYNC_THREADS;
                offset -= ROWS*inputs;
                for (int i = LOCAL_ID; i < ROWS*width[l-1]; i += NETWORK_GROUP) {
                    int r = i/width[l-1], c = i%width[l-1];
                    real value = values[offset+r*inputs+c];
                    values[offset+r*inputs+c] = slopeOf(value)*sumOfShares(parts, width[l-1], r, c);
                }
                SYNC_THREADS;
            }
            for (int i = LOCAL_ID; i < rows*width[0]; i += NETWORK_GROUP) {
                int r = i/width[0], c = i%width[0];
                hidden[(member*NUM_CENTRES+first+r)*WIDTH_0+c] = values[r*WIDTH_0+c];
            }
        }
        SYNC_THREADS;
    }
}

/**
 * From the gradients in the first hidden layers of all members to that in the symmetry functions.
 */
KERNEL void firstLayerBack(GLOBAL const int* RESTRICT tiles, GLOBAL const int* RESTRICT widths,
    GLOBAL const real* RESTRICT transposed,
        GLOBAL const real* RESTRICT hidden, GLOBAL real* RESTRICT slopes) {
    LOCAL real parts[WARPS*ROWS*32];
    const int lane = LOCAL_ID%32, warp = LOCAL_ID/32, blocks = FUNCTIONS/32;
    for (int task = GROUP_ID; task < NUM_TILES*blocks; task += NUM_GROUPS) {
        int block = task%blocks, tile = task/blocks;
        int element = tiles[3*tile], first = tiles[3*tile+1], rows = tiles[3*tile+2];
        int quarters = widths[element*HIDDEN]/4;
        const int share = (MEMBERS*quarters+WARPS-1)/WARPS;
        int end = ((warp+1)*share < MEMBERS*quarters ? (warp+1)*share : MEMBERS*quarters);
        real sums[ROWS];
        for (int r = 0; r < ROWS; r++)
            sums[r] = 0;
        for (int i = warp*share; i < end; i++) {
            int member = i/quarters, k = i-member*quarters;
            GLOBAL const real4* RESTRICT x = (GLOBAL const real4*) (hidden+(member*NUM_CENTRES+first)*WIDTH_0);
            GLOBAL const real* RESTRICT w =
                transposed+((element*MEMBERS+member)*WIDTH_0+4*k)*FUNCTIONS+block*32+lane;
            MULTIPLY(x[(r < rows ? r : 0)*(WIDTH_0/4)+k], w, FUNCTIONS)
        }
        for (int r = 0; r < ROWS; r++)
            parts[(warp*ROWS+r)*32+lane] = sums[r];
        SYNC_THREADS;
        for (int i = LOCAL_ID; i < rows*32; i += NETWORK_GROUP) {
            int r = i/32, c = i%32;
            real sum = 0;
            for (int s = 0; s < WARPS; s++)
                sum += parts[(s*ROWS+r)*32+c];
            slopes[(first+r)*FUNCTIONS+block*32+c] = sum;
        }
        SYNC_THREADS;
    }
}

)KERNEL";
