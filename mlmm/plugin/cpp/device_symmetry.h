// Device code of the symmetry functions, in OpenMM's common dialect; it stands behind that of the neighbours.
#pragma once

static const char* const kDeviceSymmetry = R"KERNEL(

/**
 * x to the power zeta-1.
 */
DEVICE real power(real x, real zeta) {
    x = (x > NUMBER(1e-12) ? x : NUMBER(1e-12));
#ifdef WHOLE_POWER
    real result = x;
    WHOLE_POWER
    return result;
#else
    return EXP((zeta-1)*LOG(x));
#endif
}

/**
 * Symmetry functions of one centre, by one group: lanes of 32 threads take one element or pair of elements, each thread
 * its share of the neighbours, or pairs of them, and then all of them one function after the other. parts:
 * DESCRIBE_GROUP*(MOST_FUNCTIONS+1) numbers.
 */
DEVICE void sumFunctions(int row, int radialRoom, int angularRoom, GLOBAL const real4* radial,
        GLOBAL const real2* radialCut, GLOBAL const real4* angular, GLOBAL const real2* angularCut,
        GLOBAL const int* starts, GLOBAL const real* RESTRICT constants, GLOBAL real* RESTRICT functions,
        LOCAL_ARG real* parts) {
    const int lane = LOCAL_ID%32, sub = LOCAL_ID/32;
    GLOBAL const real* RESTRICT etaRadial = constants;
    GLOBAL const real* RESTRICT shiftRadial = etaRadial+NUM_RADIAL;
    GLOBAL const real* RESTRICT etaMean = shiftRadial+NUM_RADIAL;
    GLOBAL const real* RESTRICT shiftMean = etaMean+NUM_MEANS;
    GLOBAL const real* RESTRICT zeta = shiftMean+NUM_MEANS;
    GLOBAL const real* RESTRICT halfCos = zeta+NUM_ANGLES;
    GLOBAL const real* RESTRICT halfSin = halfCos+NUM_ANGLES;
    GLOBAL const int* start = starts+(2*row)*(NUM_SPECIES+1);
    GLOBAL const int* angularStart = start+NUM_SPECIES+1;
    GLOBAL const real4* where = angular+row*angularRoom;
    GLOBAL const real2* cut = angularCut+row*angularRoom;
    for (int base = 0; base < NUM_BLOCKS; base += DESCRIBE_GROUP/32) {
        const int block = base+sub, isRadial = (block < NUM_SPECIES);
        const int width = (isRadial ? NUM_RADIAL : NUM_MEANS*NUM_ANGLES);
        const int offset = (isRadial ? block*NUM_RADIAL :
            NUM_SPECIES*NUM_RADIAL+(block-NUM_SPECIES)*NUM_MEANS*NUM_ANGLES);
        if (block < NUM_BLOCKS) {
            real sums[MOST_FUNCTIONS];
            for (int k = 0; k < MOST_FUNCTIONS; k++)
                sums[k] = 0;
            if (isRadial) {
                for (int i = start[block]+lane; i < start[block+1]; i += 32) {
                    real r = radial[row*radialRoom+i].w, f = NUMBER(0.25)*radialCut[row*radialRoom+i].x;
                    for (int k = 0; k < NUM_RADIAL; k++) {
                        real d = r-shiftRadial[k];
                        sums[k] += exponential(-etaRadial[k]*d*d)*f;
                    }
                }
            }
            else {
                int pair = block-NUM_SPECIES, s = 0;
                while (pair >= NUM_SPECIES-s) {
                    pair -= NUM_SPECIES-s;
                    s++;
                }
                int t = s+pair, firstS = angularStart[s], countS = angularStart[s+1]-firstS,
                    firstT = angularStart[t], countT = angularStart[t+1]-firstT;
                // Of one element with itself each pair once: those that are 1, 2, ... places apart, around a circle.
                const int items = (s == t ? countS*(countS-1)/2 : countS*countT);
                for (int i = lane; i < items; i += 32) {
                    int a = i/countT, b = i-a*countT;
                    if (s == t) {
                        const int apart = a+1;
                        a = b;
                        b = (a+apart < countS ? a+apart : a+apart-countS);
                    }
                    real4 u = where[firstS+a], v = where[firstT+b];
                    real weight = 2*cut[firstS+a].x*cut[firstT+b].x;
                    real c = NUMBER(0.95)*(u.x*v.x+u.y*v.y+u.z*v.z);
                    real sine = SQRT(1-c*c), mean = NUMBER(0.5)*(u.w+v.w);
                    real byMean[NUM_MEANS];
                    for (int k = 0; k < NUM_MEANS; k++) {
                        real d = mean-shiftMean[k];
                        byMean[k] = weight*exponential(-etaMean[k]*d*d);
                    }
                    for (int z = 0; z < NUM_ANGLES; z++) {
                        real x = NUMBER(0.5)+c*halfCos[z]+sine*halfSin[z];
                        real byAngle = x*power(x, zeta[z]);
                        for (int k = 0; k < NUM_MEANS; k++)
                            sums[k*NUM_ANGLES+z] += byMean[k]*byAngle;
                    }
                }
            }
            for (int k = 0; k < MOST_FUNCTIONS; k++)
                parts[LOCAL_ID*(MOST_FUNCTIONS+1)+k] = sums[k];
        }
        SYNC_THREADS;
        if (block < NUM_BLOCKS)
            for (int k = lane; k < width; k += 32) {
                real sum = 0;
                for (int l = 0; l < 32; l++)
                    sum += parts[(sub*32+l)*(MOST_FUNCTIONS+1)+k];
                functions[row*FUNCTIONS+offset+k] = sum;
            }
        SYNC_THREADS;
    }
}

/**
 * One group for each centre: its lists of neighbours, which the forces need again, and its symmetry functions. status:
 * told where a position is no number.
 *
 * A group lists for all its centres before it sums for any: PoCL 3.1 loses code where both are in one loop.
 */
KERNEL AT_MOST(DESCRIBE_GROUP) void describeAtoms(mixed4 boxA, mixed4 boxB, mixed4 boxC, int radialRoom,
        int angularRoom,
        GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
        GLOBAL const int* RESTRICT particles, GLOBAL const int* RESTRICT capParticles,
        GLOBAL const mixed* RESTRICT capDistances, GLOBAL const int* RESTRICT centres,
        GLOBAL const int* RESTRICT speciesStart, GLOBAL real4* radial, GLOBAL real2* radialCut, GLOBAL int* radialAtom,
        GLOBAL real4* angular, GLOBAL real2* angularCut, GLOBAL int* angularAtom, GLOBAL int* starts,
        GLOBAL int* RESTRICT wanted, GLOBAL int* RESTRICT status, GLOBAL const real* RESTRICT constants,
        GLOBAL real* RESTRICT functions ROW_COUNTS_ARGUMENT CELLS_ARGUMENT SIDES_ARGUMENT) {
    LOCAL real parts[DESCRIBE_GROUP*(MOST_FUNCTIONS+1)];
    LOCAL int near[3*MOST_NEAR], count[1], broken[1];
    for (int row = GROUP_ID; row < ROW_COUNT; row += NUM_GROUPS) {
        listNeighbours(row, boxA, boxB, boxC, radialRoom, angularRoom, posq, correction, particles, capParticles,
            capDistances, centres, speciesStart, radial, radialCut, radialAtom, angular, angularCut, angularAtom,
            starts, wanted, status, near, count, broken CELLS_GIVEN SIDES_GIVEN);
        if (LOCAL_ID == 0 && broken[0])
            status[0] = 1;
        SYNC_THREADS;
    }
    for (int row = GROUP_ID; row < ROW_COUNT; row += NUM_GROUPS)
        sumFunctions(row, radialRoom, angularRoom, radial, radialCut, angular, angularCut, starts, constants,
            functions, parts);
}

)KERNEL";
