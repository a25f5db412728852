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
 * Lanes of 32 threads, one for each (centre, element or pair of elements): each thread sums its share of the
 * neighbours, or pairs of them, and then all of them one function after the other.
 */
KERNEL void symmetryFunctions(int radialRoom, int angularRoom, GLOBAL const real4* RESTRICT radial,
        GLOBAL const real2* RESTRICT radialCut, GLOBAL const real4* RESTRICT angular,
            GLOBAL const real2* RESTRICT angularCut,
        GLOBAL const int* RESTRICT starts, GLOBAL const real* RESTRICT poison,
            GLOBAL const real* RESTRICT constants,
        GLOBAL real* RESTRICT functions ROW_COUNTS_ARGUMENT) {
    LOCAL real parts[SYMMETRY_GROUP*(MOST_FUNCTIONS+1)];
    const int lane = LOCAL_ID%32, sub = LOCAL_ID/32;
    GLOBAL const real* RESTRICT etaRadial = constants;
    GLOBAL const real* RESTRICT shiftRadial = etaRadial+NUM_RADIAL;
    GLOBAL const real* RESTRICT etaMean = shiftRadial+NUM_RADIAL;
    GLOBAL const real* RESTRICT shiftMean = etaMean+NUM_MEANS;
    GLOBAL const real* RESTRICT zeta = shiftMean+NUM_MEANS;
    GLOBAL const real* RESTRICT halfCos = zeta+NUM_ANGLES;
    GLOBAL const real* RESTRICT halfSin = halfCos+NUM_ANGLES;
    for (int base = GROUP_ID*(SYMMETRY_GROUP/32); base < ROW_COUNT*NUM_BLOCKS; base +=
        NUM_GROUPS*(SYMMETRY_GROUP/32)) {
        int task = base+sub;
        int row = task/NUM_BLOCKS, block = task-row*NUM_BLOCKS;
        int isRadial = (block < NUM_SPECIES);
        int width = (isRadial ? NUM_RADIAL : NUM_MEANS*NUM_ANGLES);
        int offset = (isRadial ? block*NUM_RADIAL :
            NUM_SPECIES*NUM_RADIAL+(block-NUM_SPECIES)*NUM_MEANS*NUM_ANGLES);
        if (task < ROW_COUNT*NUM_BLOCKS) {
            real sums[MOST_FUNCTIONS];
            for (int k = 0; k < MOST_FUNCTIONS; k++)
                sums[k] = 0;
            if (isRadial) {
                GLOBAL const int* RESTRICT start = starts+(2*row)*(NUM_SPECIES+1)+block;
                for (int i = start[0]+lane; i < start[1]; i += 32) {
                    real r = radial[row*radialRoom+i].w, f = NUMBER(0.25)*radialCut[row*radialRoom+i].x;
                    for (int k = 0; k < NUM_RADIAL; k++) {
                        real d = r-shiftRadial[k];
                        sums[k] += EXP(-etaRadial[k]*d*d)*f;
                    }
                }
                if (block == 0 && lane == 0)
                    sums[0] += poison[row];
            }
            else {
                int pair = block-NUM_SPECIES, s = 0;
                while (pair >= NUM_SPECIES-s) {
                    pair -= NUM_SPECIES-s;
                    s++;
                }
                GLOBAL const int* RESTRICT start = starts+(2*row+1)*(NUM_SPECIES+1);
                int t = s+pair, firstS = start[s], countS = start[s+1]-firstS, firstT = start[t],
                    countT = start[t+1]-firstT;
                GLOBAL const real4* RESTRICT where = angular+row*angularRoom;
                GLOBAL const real2* RESTRICT cut = angularCut+row*angularRoom;
                for (int i = lane; i < countS*countT; i += 32) {
                    int a = i/countT, b = i-a*countT;
                    if (s == t && a >= b)
                        continue;
                    real4 u = where[firstS+a], v = where[firstT+b];
                    real weight = 2*cut[firstS+a].x*cut[firstT+b].x;
                    real c = NUMBER(0.95)*(u.x*v.x+u.y*v.y+u.z*v.z);
                    real sine = SQRT(1-c*c), mean = NUMBER(0.5)*(u.w+v.w);
                    real byMean[NUM_MEANS];
                    for (int k = 0; k < NUM_MEANS; k++) {
                        real d = mean-shiftMean[k];
                        byMean[k] = weight*EXP(-etaMean[k]*d*d);
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
        if (task < ROW_COUNT*NUM_BLOCKS)
            for (int k = lane; k < width; k += 32) {
                real sum = 0;
                for (int l = 0; l < 32; l++)
                    sum += parts[(sub*32+l)*(MOST_FUNCTIONS+1)+k];
                functions[row*FUNCTIONS+offset+k] = sum;
            }
        SYNC_THREADS;
    }
}

)KERNEL";
