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
 * For each thread the sum of `value` over those before it; *total: over all. counts: 2*SEARCH_GROUP numbers.
 */
DEVICE int sumBefore(int value, LOCAL_ARG int* counts, int* total) {
    int from = 0;
    counts[LOCAL_ID] = value;
    SYNC_THREADS;
    for (int step = 1; step < SEARCH_GROUP; step *= 2) {
        int sum = counts[from+LOCAL_ID]+(LOCAL_ID >= step ? counts[from+LOCAL_ID-step] : 0);
        from = SEARCH_GROUP-from;
        counts[from+LOCAL_ID] = sum;
        SYNC_THREADS;
    }
    int sum = counts[from+LOCAL_ID];
    *total = counts[from+SEARCH_GROUP-1];
    SYNC_THREADS;
    return sum-value;
}

/**
 * Edges of the box for quick arithmetic in `real`; their last numbers are their inverse heights.
 */
typedef struct {
    real4 a, b, c;
} Edges;

DEVICE Edges edgesOf(mixed4 boxA, mixed4 boxB, mixed4 boxC) {
    Edges edges;
    edges.a = make_real4((real) boxA.x, 0, 0, (real) (1/boxA.x));
    edges.b = make_real4((real) boxB.x, (real) boxB.y, 0, (real) (1/boxB.y));
    edges.c = make_real4((real) boxC.x, (real) boxC.y, (real) boxC.z, (real) (1/boxC.z));
    return edges;
}

/**
 * The square of a difference of positions, nm^2, that of its nearest image where it `wraps`; by quick arithmetic in
 * `real`, whose error the caller has to leave room for.
 */
DEVICE real quickSquare(real x, real y, real z, const int wraps, Edges edges) {
#ifdef USE_PERIODIC
    if (wraps) {
        real n = floor(z*edges.c.w+NUMBER(0.5));
        x -= n*edges.c.x; y -= n*edges.c.y; z -= n*edges.c.z;
        n = floor(y*edges.b.w+NUMBER(0.5));
        x -= n*edges.b.x; y -= n*edges.b.y;
        x -= floor(x*edges.a.w+NUMBER(0.5))*edges.a.x;
    }
#endif
    return x*x+y*y+z*z;
}

/**
 * Whether an atom may be within the cutoff: 2 says that its position is no number.
 */
DEVICE char mayBeNear(real x, real y, real z, Edges edges) {
    real squared = LENGTH*LENGTH*quickSquare(x, y, z, 1, edges);
    if (!(squared < NUMBER(1e24)))
        return 2;
    return squared < NUMBER(1.001)*RADIAL_CUTOFF*RADIAL_CUTOFF;
}

DEVICE int atMost(int number, int room) {
    return (number < room ? number : room);
}

/**
 * One group for each centre; lists in the order of the atoms. room: places in each list; where that is too little,
 * the list is cut, and the status says so. wanted: neighbours of each centre, whatever the room.
 *
 * Of each chunk of the atoms, all threads look for those that may be near, side by side in memory; these are listed
 * in local memory in their order, and the few of them get exact distances. A threshold within rounding of the cutoff
 * does not matter: the cutoff function is zero there, and so is its slope.
 */
KERNEL void findNeighbours(mixed4 boxA, mixed4 boxB, mixed4 boxC, int radialRoom, int angularRoom, real notANumber,
        GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
            GLOBAL const int* RESTRICT particles,
        GLOBAL const int* RESTRICT capParticles, GLOBAL const mixed* RESTRICT capDistances,
        GLOBAL const int* RESTRICT centres, GLOBAL const int* RESTRICT speciesStart,
        GLOBAL real4* RESTRICT radial, GLOBAL real2* RESTRICT radialCut, GLOBAL int* RESTRICT radialAtom,
        GLOBAL real4* RESTRICT angular, GLOBAL real2* RESTRICT angularCut, GLOBAL int* RESTRICT angularAtom,
        GLOBAL int* RESTRICT starts, GLOBAL real* RESTRICT poison, GLOBAL int* RESTRICT wanted,
        GLOBAL int* RESTRICT status ROW_COUNTS_ARGUMENT SIDES_ARGUMENT) {
    LOCAL char near[SEARCH_CHUNK];
    LOCAL int found[SEARCH_CHUNK], kinds[SEARCH_CHUNK+1];
    LOCAL int counts[2*SEARCH_GROUP];
    LOCAL int broken;
    const int share = SEARCH_CHUNK/SEARCH_GROUP;
    const Edges edges = edgesOf(boxA, boxB, boxC);
    for (int row = GROUP_ID; row < ROW_COUNT; row += NUM_GROUPS) {
        int own = centres[row], numRadial = 0, numAngular = 0;
        mixed3 here = atomPosition(posq, correction, particles, capParticles, capDistances, own, boxA, boxB, boxC);
        if (LOCAL_ID == 0)
            broken = !(fabs(here.x)+fabs(here.y)+fabs(here.z) < (mixed) 1e12f);
        SYNC_THREADS;
        for (int base = 0; base < NUM_ATOMS; base += SEARCH_CHUNK) {
            int size = (NUM_ATOMS-base < SEARCH_CHUNK ? NUM_ATOMS-base : SEARCH_CHUNK);
            for (int j = LOCAL_ID; j < SEARCH_CHUNK; j += SEARCH_GROUP) {
                char flag = 0;
                if (j < size && IS_NEIGHBOUR(row, own, base+j)) {
                    int particle = particles[base+j];
                    real4 there = posq[particle < 0 ? 0 : particle];
#if NUM_CAPS > 0
                    if (particle < 0) {
                        mixed3 cap = atomPosition(posq, correction, particles, capParticles, capDistances, base+j,
                            boxA, boxB, boxC);
                        there = make_real4((real) cap.x, (real) cap.y, (real) cap.z, 0);
                    }
#endif
                    flag = mayBeNear(there.x-(real) here.x, there.y-(real) here.y, there.z-(real) here.z, edges);
                    if (flag == 2)
                        broken = 1;
                }
                near[j] = (flag == 1);
            }
            SYNC_THREADS;
            int mine = 0, all;
            for (int j = LOCAL_ID*share; j < (LOCAL_ID+1)*share; j++)
                mine += near[j];
            int place = sumBefore(mine, counts, &all);
            for (int j = LOCAL_ID*share; j < (LOCAL_ID+1)*share; j++)
                if (near[j])
                    found[place++] = base+j;
            SYNC_THREADS;
            // Exact distances. kinds: of the atoms before each one, how many are within the angular cutoff.
            int before = numAngular;
            for (int first = 0; first < all; first += SEARCH_GROUP) {
                int k = first+LOCAL_ID, isAngular = 0, j = 0;
                real r = 0, ux = 0, uy = 0, uz = 0;
                if (k < all) {
                    j = found[k];
                    mixed3 there = atomPosition(posq, correction, particles, capParticles, capDistances, j, boxA, boxB,
                        boxC);
                    mixed3 d = separation(here, there, boxA, boxB, boxC);
                    real x = (real) (LENGTH*d.x), y = (real) (LENGTH*d.y), z = (real) (LENGTH*d.z);
                    real squared = x*x+y*y+z*z;
                    // On top of each other.
                    if (!(squared > NUMBER(1e-12)))
                        broken = 1;
                    isAngular = (squared < ANGULAR_CUTOFF*ANGULAR_CUTOFF);
                    r = SQRT(squared);
                    ux = x/r; uy = y/r; uz = z/r;
                }
                int total, next = before+sumBefore(isAngular, counts, &total);
                before += total;
                if (k < all) {
                    kinds[k] = next;
                    int slot = numRadial+k;
                    if (slot < radialRoom) {
                        radial[row*radialRoom+slot] = make_real4(ux, uy, uz, r);
                        radialCut[row*radialRoom+slot] = (r < RADIAL_CUTOFF ? cutoffFunction(r, RADIAL_CUTOFF) :
                            make_real2(0, 0));
                        radialAtom[row*radialRoom+slot] = j;
                    }
                    if (isAngular && next < angularRoom) {
                        angular[row*angularRoom+next] = make_real4(ux, uy, uz, r);
                        angularCut[row*angularRoom+next] = cutoffFunction(r, ANGULAR_CUTOFF);
                        angularAtom[row*angularRoom+next] = j;
                    }
                }
            }
            if (LOCAL_ID == 0)
                kinds[all] = before;
            SYNC_THREADS;
            // Where each element begins, by bisection.
            for (int s = LOCAL_ID; s < NUM_SPECIES; s += SEARCH_GROUP) {
                int start = speciesStart[s];
                if (start >= base && start < base+size) {
                    int low = 0, high = all;
                    while (low < high) {
                        int middle = (low+high)/2;
                        if (found[middle] < start)
                            low = middle+1;
                        else
                            high = middle;
                    }
                    starts[(2*row)*(NUM_SPECIES+1)+s] = atMost(numRadial+low, radialRoom);
                    starts[(2*row+1)*(NUM_SPECIES+1)+s] = atMost(kinds[low], angularRoom);
                }
            }
            numRadial += all;
            numAngular = before;
            SYNC_THREADS;
        }
        if (LOCAL_ID == 0) {
            starts[(2*row)*(NUM_SPECIES+1)+NUM_SPECIES] = atMost(numRadial, radialRoom);
            starts[(2*row+1)*(NUM_SPECIES+1)+NUM_SPECIES] = atMost(numAngular, angularRoom);
            wanted[2*row] = numRadial;
            wanted[2*row+1] = numAngular;
            if (numRadial > radialRoom || numAngular > angularRoom)
                status[1] = 1;
            poison[row] = (broken ? notANumber : (real) 0);
        }
        SYNC_THREADS;
    }
}

)KERNEL";
