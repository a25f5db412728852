// Device code of the neighbours, symmetry functions and forces, in OpenMM's common dialect: compiled at run time for
// CUDA, HIP and OpenCL. Only what OpenMM defines in all three. Lengths in angstrom, gradients in kJ/mol/angstrom.
//
// Atoms stand sorted by element, and so do lists of neighbours. Differences of positions are taken in mixed
// precision and then rounded to real. Forces are summed in OpenMM's fixed point: the same bits in any order.
#pragma once

static const char* const kDeviceGeometry = R"KERNEL(

#ifdef USE_DOUBLE_PRECISION
#define NUMBER(x) x
#else
#define NUMBER(x) x##f
#endif

DEVICE mixed3 particlePosition(GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction, int index) {
    real4 p = posq[index];
#ifdef USE_MIXED_PRECISION
    real4 c = correction[index];
    return make_mixed3(p.x+(mixed) c.x, p.y+(mixed) c.y, p.z+(mixed) c.z);
#else
    return make_mixed3(p.x, p.y, p.z);
#endif
}

DEVICE mixed3 separation(mixed3 from, mixed3 to, mixed4 boxA, mixed4 boxB, mixed4 boxC) {
    mixed3 d = make_mixed3(to.x-from.x, to.y-from.y, to.z-from.z);
#ifdef USE_PERIODIC
    mixed n = floor(d.z/boxC.z+(mixed) 0.5f);
    d.x -= n*boxC.x; d.y -= n*boxC.y; d.z -= n*boxC.z;
    n = floor(d.y/boxB.y+(mixed) 0.5f);
    d.x -= n*boxB.x; d.y -= n*boxB.y;
    d.x -= floor(d.x/boxA.x+(mixed) 0.5f)*boxA.x;
#endif
    return d;
}

/**
 * Of an atom: a particle, or (number -1-k) cap k, at its distance from the outer particle towards the inner one.
 */
DEVICE mixed3 atomPosition(GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
        GLOBAL const int* RESTRICT particles, GLOBAL const int* RESTRICT capParticles,
        GLOBAL const mixed* RESTRICT capDistances, int index, mixed4 boxA, mixed4 boxB, mixed4 boxC) {
    int particle = particles[index];
#if NUM_CAPS > 0
    if (particle < 0) {
        int cap = -1-particle;
        mixed3 outer = particlePosition(posq, correction, capParticles[2*cap]);
        mixed3 inner = particlePosition(posq, correction, capParticles[2*cap+1]);
        mixed3 d = separation(outer, inner, boxA, boxB, boxC);
        mixed scale = capDistances[cap]/sqrt(d.x*d.x+d.y*d.y+d.z*d.z);
        return make_mixed3(outer.x+scale*d.x, outer.y+scale*d.y, outer.z+scale*d.z);
    }
#endif
    return particlePosition(posq, correction, particle);
}

/**
 * cos(pi r/R)/2 + 1/2 and its derivative, 0 <= r <= R.
 */
DEVICE real2 cutoffFunction(real r, real cutoff) {
    real y = r*(NUMBER(3.14159265358979323846)/cutoff)-NUMBER(1.57079632679489661923);
    real q = y*y;
    real s = NUMBER(1.0)/NUMBER(51090942171709440000.0), c = NUMBER(1.0)/NUMBER(2432902008176640000.0);
    s = NUMBER(1.0)/NUMBER(121645100408832000.0)-s*q;
    s = NUMBER(1.0)/NUMBER(355687428096000.0)-s*q;
    s = NUMBER(1.0)/NUMBER(1307674368000.0)-s*q;
    s = NUMBER(1.0)/NUMBER(6227020800.0)-s*q;
    s = NUMBER(1.0)/NUMBER(39916800.0)-s*q;
    s = NUMBER(1.0)/NUMBER(362880.0)-s*q;
    s = NUMBER(1.0)/NUMBER(5040.0)-s*q;
    s = NUMBER(1.0)/NUMBER(120.0)-s*q;
    s = NUMBER(1.0)/NUMBER(6.0)-s*q;
    s = NUMBER(1.0)-s*q;
    c = NUMBER(1.0)/NUMBER(6402373705728000.0)-c*q;
    c = NUMBER(1.0)/NUMBER(20922789888000.0)-c*q;
    c = NUMBER(1.0)/NUMBER(87178291200.0)-c*q;
    c = NUMBER(1.0)/NUMBER(479001600.0)-c*q;
    c = NUMBER(1.0)/NUMBER(3628800.0)-c*q;
    c = NUMBER(1.0)/NUMBER(40320.0)-c*q;
    c = NUMBER(1.0)/NUMBER(720.0)-c*q;
    c = NUMBER(1.0)/NUMBER(24.0)-c*q;
    c = NUMBER(0.5)-c*q;
    c = NUMBER(1.0)-c*q;
    return make_real2(NUMBER(0.5)-NUMBER(0.5)*s*y, -c*(NUMBER(1.57079632679489661923)/cutoff));
}

/**
 * One group for each centre. Each thread counts the neighbours in its share of the atoms, then writes them behind
 * those of the threads before it: lists in the order of the atoms, of any length. room: places in each list.
 */
KERNEL void findNeighbours(mixed4 boxA, mixed4 boxB, mixed4 boxC, int radialRoom, int angularRoom, real notANumber,
        GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction, GLOBAL const int* RESTRICT particles,
        GLOBAL const int* RESTRICT capParticles, GLOBAL const mixed* RESTRICT capDistances,
        GLOBAL const int* RESTRICT centres, GLOBAL const int* RESTRICT speciesStart,
        GLOBAL real4* RESTRICT radial, GLOBAL real2* RESTRICT radialCut, GLOBAL int* RESTRICT radialAtom,
        GLOBAL real4* RESTRICT angular, GLOBAL real2* RESTRICT angularCut, GLOBAL int* RESTRICT angularAtom,
        GLOBAL int* RESTRICT starts, GLOBAL real* RESTRICT poison) {
    LOCAL int counts[2*SEARCH_GROUP];
    LOCAL int broken[SEARCH_GROUP];
    const int share = (NUM_ATOMS+SEARCH_GROUP-1)/SEARCH_GROUP;
    const int first = LOCAL_ID*share;
    const int last = (first+share < NUM_ATOMS ? first+share : NUM_ATOMS);
    for (int row = GROUP_ID; row < NUM_CENTRES; row += NUM_GROUPS) {
        int own = centres[row];
        mixed3 here = atomPosition(posq, correction, particles, capParticles, capDistances, own, boxA, boxB, boxC);
        int numRadial = 0, numAngular = 0;
        int bad = !(fabs(here.x)+fabs(here.y)+fabs(here.z) < (mixed) 1e12f);
        for (int j = first; j < last; j++)
            if (j != own) {
                mixed3 there = atomPosition(posq, correction, particles, capParticles, capDistances, j, boxA, boxB, boxC);
                mixed3 d = separation(here, there, boxA, boxB, boxC);
                real x = (real) (LENGTH*d.x), y = (real) (LENGTH*d.y), z = (real) (LENGTH*d.z);
                real squared = x*x+y*y+z*z;
                // Neither on top of each other nor anything but a number.
                bad |= !(squared > NUMBER(1e-12) && squared < NUMBER(1e24));
                numRadial += (squared < RADIAL_CUTOFF*RADIAL_CUTOFF);
                numAngular += (squared < ANGULAR_CUTOFF*ANGULAR_CUTOFF);
            }
        counts[LOCAL_ID] = numRadial;
        counts[SEARCH_GROUP+LOCAL_ID] = numAngular;
        broken[LOCAL_ID] = bad;
        SYNC_THREADS;
        int nextRadial = 0, nextAngular = 0;
        for (int t = 0; t < LOCAL_ID; t++) {
            nextRadial += counts[t];
            nextAngular += counts[SEARCH_GROUP+t];
        }
        if (LOCAL_ID == SEARCH_GROUP-1) {
            starts[(2*row)*(NUM_SPECIES+1)+NUM_SPECIES] = nextRadial+numRadial;
            starts[(2*row+1)*(NUM_SPECIES+1)+NUM_SPECIES] = nextAngular+numAngular;
            for (int t = 0; t < SEARCH_GROUP-1; t++)
                bad |= broken[t];
            poison[row] = (bad ? notANumber : (real) 0);
        }
        int species = 0;
        while (species < NUM_SPECIES && speciesStart[species] < first)
            species++;
        for (int j = first; j < last; j++) {
            while (species < NUM_SPECIES && speciesStart[species] == j) {
                starts[(2*row)*(NUM_SPECIES+1)+species] = nextRadial;
                starts[(2*row+1)*(NUM_SPECIES+1)+species] = nextAngular;
                species++;
            }
            if (j == own)
                continue;
            mixed3 there = atomPosition(posq, correction, particles, capParticles, capDistances, j, boxA, boxB, boxC);
            mixed3 d = separation(here, there, boxA, boxB, boxC);
            real x = (real) (LENGTH*d.x), y = (real) (LENGTH*d.y), z = (real) (LENGTH*d.z);
            real squared = x*x+y*y+z*z;
            if (squared < RADIAL_CUTOFF*RADIAL_CUTOFF) {
                real r = SQRT(squared);
                real4 where = make_real4(x/r, y/r, z/r, r);
                if (nextRadial < radialRoom) {
                    int place = row*radialRoom+nextRadial;
                    radial[place] = where;
                    radialCut[place] = cutoffFunction(r, RADIAL_CUTOFF);
                    radialAtom[place] = j;
                }
                nextRadial++;
                if (squared < ANGULAR_CUTOFF*ANGULAR_CUTOFF) {
                    if (nextAngular < angularRoom) {
                        int place = row*angularRoom+nextAngular;
                        angular[place] = where;
                        angularCut[place] = cutoffFunction(r, ANGULAR_CUTOFF);
                        angularAtom[place] = j;
                    }
                    nextAngular++;
                }
            }
        }
        SYNC_THREADS;
    }
}

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
        GLOBAL const real2* RESTRICT radialCut, GLOBAL const real4* RESTRICT angular, GLOBAL const real2* RESTRICT angularCut,
        GLOBAL const int* RESTRICT starts, GLOBAL const real* RESTRICT poison, GLOBAL const real* RESTRICT constants,
        GLOBAL real* RESTRICT functions) {
    LOCAL real parts[SYMMETRY_GROUP*(MOST_FUNCTIONS+1)];
    const int lane = LOCAL_ID%32, sub = LOCAL_ID/32;
    GLOBAL const real* RESTRICT etaRadial = constants;
    GLOBAL const real* RESTRICT shiftRadial = etaRadial+NUM_RADIAL;
    GLOBAL const real* RESTRICT etaMean = shiftRadial+NUM_RADIAL;
    GLOBAL const real* RESTRICT shiftMean = etaMean+NUM_MEANS;
    GLOBAL const real* RESTRICT zeta = shiftMean+NUM_MEANS;
    GLOBAL const real* RESTRICT halfCos = zeta+NUM_ANGLES;
    GLOBAL const real* RESTRICT halfSin = halfCos+NUM_ANGLES;
    for (int base = GROUP_ID*(SYMMETRY_GROUP/32); base < NUM_CENTRES*NUM_BLOCKS; base += NUM_GROUPS*(SYMMETRY_GROUP/32)) {
        int task = base+sub;
        int row = task/NUM_BLOCKS, block = task-row*NUM_BLOCKS;
        int isRadial = (block < NUM_SPECIES);
        int width = (isRadial ? NUM_RADIAL : NUM_MEANS*NUM_ANGLES);
        int offset = (isRadial ? block*NUM_RADIAL : NUM_SPECIES*NUM_RADIAL+(block-NUM_SPECIES)*NUM_MEANS*NUM_ANGLES);
        if (task < NUM_CENTRES*NUM_BLOCKS) {
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
                int t = s+pair, firstS = start[s], countS = start[s+1]-firstS, firstT = start[t], countT = start[t+1]-firstT;
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
        if (task < NUM_CENTRES*NUM_BLOCKS)
            for (int k = lane; k < width; k += 32) {
                real sum = 0;
                for (int l = 0; l < 32; l++)
                    sum += parts[(sub*32+l)*(MOST_FUNCTIONS+1)+k];
                functions[row*FUNCTIONS+offset+k] = sum;
            }
        SYNC_THREADS;
    }
}

DEVICE mm_long fixedPoint(real value) {
    return (mm_long) (value*0x100000000);
}

/**
 * Adds minus a gradient to the force on an atom.
 */
DEVICE void push(GLOBAL mm_ulong* RESTRICT forces, GLOBAL mm_ulong* RESTRICT capForces, int particle, mm_long x, mm_long y, mm_long z) {
#if NUM_CAPS > 0
    if (particle < 0) {
        int cap = -1-particle;
        ATOMIC_ADD(&capForces[cap], (mm_ulong) -x);
        ATOMIC_ADD(&capForces[cap+NUM_CAPS], (mm_ulong) -y);
        ATOMIC_ADD(&capForces[cap+2*NUM_CAPS], (mm_ulong) -z);
        return;
    }
#endif
    ATOMIC_ADD(&forces[particle], (mm_ulong) -x);
    ATOMIC_ADD(&forces[particle+PADDED_NUM_ATOMS], (mm_ulong) -y);
    ATOMIC_ADD(&forces[particle+2*PADDED_NUM_ATOMS], (mm_ulong) -z);
}

/**
 * One group for each centre: from the gradient in its symmetry functions to that in the positions of its neighbours.
 * A pair of neighbours is met from both sides, so that each thread has the whole gradient of one neighbour.
 */
KERNEL void addForces(int radialRoom, int angularRoom, GLOBAL const real4* RESTRICT radial,
        GLOBAL const real2* RESTRICT radialCut, GLOBAL const int* RESTRICT radialAtom, GLOBAL const real4* RESTRICT angular,
        GLOBAL const real2* RESTRICT angularCut, GLOBAL const int* RESTRICT angularAtom, GLOBAL const int* RESTRICT starts,
        GLOBAL const real* RESTRICT constants, GLOBAL const real* RESTRICT slopes, GLOBAL const int* RESTRICT particles,
        GLOBAL const int* RESTRICT centres, GLOBAL mm_ulong* RESTRICT capForces, GLOBAL mm_ulong* RESTRICT forces) {
    LOCAL real byFunction[FUNCTIONS];
    LOCAL mm_long own[3*FORCE_GROUP];
    GLOBAL const real* RESTRICT etaRadial = constants;
    GLOBAL const real* RESTRICT shiftRadial = etaRadial+NUM_RADIAL;
    GLOBAL const real* RESTRICT etaMean = shiftRadial+NUM_RADIAL;
    GLOBAL const real* RESTRICT shiftMean = etaMean+NUM_MEANS;
    GLOBAL const real* RESTRICT zeta = shiftMean+NUM_MEANS;
    GLOBAL const real* RESTRICT halfCos = zeta+NUM_ANGLES;
    GLOBAL const real* RESTRICT halfSin = halfCos+NUM_ANGLES;
    for (int row = GROUP_ID; row < NUM_CENTRES; row += NUM_GROUPS) {
        for (int k = LOCAL_ID; k < FUNCTIONS; k += FORCE_GROUP)
            byFunction[k] = LENGTH*slopes[row*FUNCTIONS+k];
        SYNC_THREADS;
        mm_long sumX = 0, sumY = 0, sumZ = 0;
        GLOBAL const int* RESTRICT start = starts+(2*row)*(NUM_SPECIES+1);
        for (int i = LOCAL_ID; i < start[NUM_SPECIES]; i += FORCE_GROUP) {
            int s = 0;
            while (i >= start[s+1])
                s++;
            real4 u = radial[row*radialRoom+i];
            real2 f = radialCut[row*radialRoom+i];
            real along = 0;
            for (int k = 0; k < NUM_RADIAL; k++) {
                real d = u.w-shiftRadial[k];
                along += byFunction[s*NUM_RADIAL+k]*EXP(-etaRadial[k]*d*d)*(f.y-2*etaRadial[k]*d*f.x);
            }
            along *= NUMBER(0.25);
            mm_long x = fixedPoint(along*u.x), y = fixedPoint(along*u.y), z = fixedPoint(along*u.z);
            push(forces, capForces, particles[radialAtom[row*radialRoom+i]], x, y, z);
            sumX += x; sumY += y; sumZ += z;
        }
        start += NUM_SPECIES+1;
        int count = start[NUM_SPECIES];
        for (int item = LOCAL_ID; item < count*FORCE_SHARES; item += FORCE_GROUP) {
            int i = item/FORCE_SHARES, s = 0;
            while (i >= start[s+1])
                s++;
            real4 u = angular[row*angularRoom+i];
            real2 f = angularCut[row*angularRoom+i];
            real gx = 0, gy = 0, gz = 0, byRadius = 0;
            for (int j = item-i*FORCE_SHARES; j < count; j += FORCE_SHARES) {
                if (j == i)
                    continue;
                int t = 0;
                while (j >= start[t+1])
                    t++;
                int low = (s < t ? s : t), high = (s < t ? t : s);
                int pair = low*NUM_SPECIES-(low*(low-1))/2+high-low;
                LOCAL_ARG const real* RESTRICT block = byFunction+NUM_SPECIES*NUM_RADIAL+pair*NUM_MEANS*NUM_ANGLES;
                real4 v = angular[row*angularRoom+j];
                real2 g = angularCut[row*angularRoom+j];
                real cosine = u.x*v.x+u.y*v.y+u.z*v.z, c = NUMBER(0.95)*cosine;
                real sine = SQRT(1-c*c), tangent = c/sine, mean = NUMBER(0.5)*(u.w+v.w);
                real values[NUM_MEANS], turns[NUM_MEANS];
                for (int k = 0; k < NUM_MEANS; k++)
                    values[k] = turns[k] = 0;
                for (int z = 0; z < NUM_ANGLES; z++) {
                    real x = NUMBER(0.5)+c*halfCos[z]+sine*halfSin[z];
                    real p = power(x, zeta[z]);
                    real turn = zeta[z]*p*(halfCos[z]-tangent*halfSin[z]);
                    p *= x;
                    for (int k = 0; k < NUM_MEANS; k++) {
                        values[k] += block[k*NUM_ANGLES+z]*p;
                        turns[k] += block[k*NUM_ANGLES+z]*turn;
                    }
                }
                real byCosine = 0, byMean = 0, byWeight = 0;
                for (int k = 0; k < NUM_MEANS; k++) {
                    real d = mean-shiftMean[k], e = EXP(-etaMean[k]*d*d);
                    byCosine += e*turns[k];
                    byMean -= 2*etaMean[k]*d*e*values[k];
                    byWeight += e*values[k];
                }
                real weight = 2*f.x*g.x, across = NUMBER(0.95)*weight*byCosine/u.w;
                gx += across*(v.x-cosine*u.x);
                gy += across*(v.y-cosine*u.y);
                gz += across*(v.z-cosine*u.z);
                byRadius += NUMBER(0.5)*weight*byMean+2*g.x*f.y*byWeight;
            }
            mm_long x = fixedPoint(gx+byRadius*u.x), y = fixedPoint(gy+byRadius*u.y), z = fixedPoint(gz+byRadius*u.z);
            push(forces, capForces, particles[angularAtom[row*angularRoom+i]], x, y, z);
            sumX += x; sumY += y; sumZ += z;
        }
        own[LOCAL_ID] = sumX;
        own[FORCE_GROUP+LOCAL_ID] = sumY;
        own[2*FORCE_GROUP+LOCAL_ID] = sumZ;
        SYNC_THREADS;
        if (LOCAL_ID == 0) {
            sumX = sumY = sumZ = 0;
            for (int t = 0; t < FORCE_GROUP; t++) {
                sumX += own[t]; sumY += own[FORCE_GROUP+t]; sumZ += own[2*FORCE_GROUP+t];
            }
            push(forces, capForces, particles[centres[row]], -sumX, -sumY, -sumZ);
        }
        SYNC_THREADS;
    }
}

#if NUM_CAPS > 0
/**
 * The force on a cap to both particles of its bond: along the bond all of it stays with the outer one.
 */
KERNEL void spreadCapForces(mixed4 boxA, mixed4 boxB, mixed4 boxC, GLOBAL const real4* RESTRICT posq,
        GLOBAL const real4* RESTRICT correction, GLOBAL const int* RESTRICT capParticles, GLOBAL const mixed* RESTRICT capDistances,
        GLOBAL mm_ulong* RESTRICT capForces, GLOBAL mm_ulong* RESTRICT forces) {
    for (int cap = GLOBAL_ID; cap < NUM_CAPS; cap += GLOBAL_SIZE) {
        int outer = capParticles[2*cap], inner = capParticles[2*cap+1];
        mixed3 d = separation(particlePosition(posq, correction, outer), particlePosition(posq, correction, inner), boxA, boxB, boxC);
        mixed inverse = 1/sqrt(d.x*d.x+d.y*d.y+d.z*d.z);
        mixed ux = d.x*inverse, uy = d.y*inverse, uz = d.z*inverse;
        mm_long wholeX = (mm_long) capForces[cap], wholeY = (mm_long) capForces[cap+NUM_CAPS], wholeZ = (mm_long) capForces[cap+2*NUM_CAPS];
        capForces[cap] = capForces[cap+NUM_CAPS] = capForces[cap+2*NUM_CAPS] = 0;
        mixed along = wholeX*ux+wholeY*uy+wholeZ*uz, scale = capDistances[cap]*inverse;
        mm_long x = (mm_long) (scale*(wholeX-along*ux)), y = (mm_long) (scale*(wholeY-along*uy)), z = (mm_long) (scale*(wholeZ-along*uz));
        push(forces, capForces, inner, -x, -y, -z);
        push(forces, capForces, outer, x-wholeX, y-wholeY, z-wholeZ);
    }
}
#endif

)KERNEL";
