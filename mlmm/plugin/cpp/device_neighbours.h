// Device code that finds neighbours, in OpenMM's common dialect: compiled at run time for CUDA, HIP and OpenCL. Only
// what OpenMM defines in all three. Lengths in angstrom.
//
// Atoms stand sorted by element, and so do lists of neighbours. Differences of positions are taken in mixed precision
// and then rounded to real.
#pragma once

static const char* const kDeviceNeighbours = R"KERNEL(

#ifdef USE_DOUBLE_PRECISION
#define NUMBER(x) x
#else
#define NUMBER(x) x##f
#endif

DEVICE mixed3 particlePosition(GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
    int index) {
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
        GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
            GLOBAL const int* RESTRICT particles,
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
                mixed3 there = atomPosition(posq, correction, particles, capParticles, capDistances, j, boxA,
                    boxB, boxC);
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
            mixed3 there = atomPosition(posq, correction, particles, capParticles, capDistances, j, boxA, boxB,
                boxC);
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

)KERNEL";
