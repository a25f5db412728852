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

// Most threads of a group of a kernel, of which HIP's compiler would leave registers for 1,024.
#if defined(__HIP__)
#define AT_MOST(threads) __launch_bounds__(threads)
#else
#define AT_MOST(threads)
#endif

/**
 * Whether a number is infinite or none. By its bits: HIP's compiler takes every number for finite, x != x for false.
 */
DEVICE int isNoNumber(real x) {
#ifdef USE_DOUBLE_PRECISION
    union { real number; unsigned int words[2]; } bits;
    bits.number = x;
    return (bits.words[1]&0x7fffffffu) >= 0x7fe00000u;
#else
    union { real number; unsigned int word; } bits;
    bits.number = x;
    return (bits.word&0x7fffffffu) >= 0x7f000000u;
#endif
}

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
 * e to the power x. CUDA's quick one rounds x*log2(e), which loses a digit for each ten of it; here the rest is kept.
 */
DEVICE real exponential(real x) {
#ifdef USE_DOUBLE_PRECISION
    return EXP(x);
#else
    real whole = x*NUMBER(1.44269504);
    real rest = fma(x, NUMBER(1.44269504), -whole)+x*NUMBER(1.925963033500701e-8);
    return exp2(whole)*(1+NUMBER(0.69314718056)*rest);
#endif
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
 * For each thread of a group of `size` the sum of `value` over those before it; *total: over all. counts: 2*size
 * numbers.
 */
DEVICE int sumBefore(int value, LOCAL_ARG int* counts, const int size, int* total) {
    int from = 0;
    counts[LOCAL_ID] = value;
    SYNC_THREADS;
    for (int step = 1; step < size; step *= 2) {
        int sum = counts[from+LOCAL_ID]+(LOCAL_ID >= step ? counts[from+LOCAL_ID-step] : 0);
        from = size-from;
        counts[from+LOCAL_ID] = sum;
        SYNC_THREADS;
    }
    int sum = counts[from+LOCAL_ID];
    *total = counts[from+size-1];
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
    if (isNoNumber(squared) || squared > NUMBER(1e24))
        return 2;
    return squared < NUMBER(1.001)*RADIAL_CUTOFF*RADIAL_CUTOFF;
}

DEVICE int atMost(int number, int room) {
    return (number < room ? number : room);
}

)KERNEL";

static const char* const kDeviceSearch = R"KERNEL(

#if CELLS_ALONG > 0
#define CELLS_ARGUMENT , GLOBAL const int* RESTRICT cellStart, GLOBAL const real4* RESTRICT cellPlaces, \
    GLOBAL const int* RESTRICT cellAtoms, GLOBAL const int* RESTRICT cellsBroken
#define CELLS_GIVEN , cellStart, cellPlaces, cellAtoms, cellsBroken
#else
#define CELLS_ARGUMENT
#define CELLS_GIVEN
#endif

/**
 * Numbers of the atoms that may be within the cutoff of `here`, in any order; *count of them. *broken: where a position
 * is no number, or more are near than there can be.
 */
DEVICE void collectNear(int row, int own, mixed3 here, Edges edges, mixed4 boxA, mixed4 boxB, mixed4 boxC,
        GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
        GLOBAL const int* RESTRICT particles, GLOBAL const int* RESTRICT capParticles,
        GLOBAL const mixed* RESTRICT capDistances, LOCAL_ARG int* found, LOCAL_ARG int* count, LOCAL_ARG int* broken
        CELLS_ARGUMENT SIDES_ARGUMENT) {
#if CELLS_ALONG > 0
    if (LOCAL_ID == 0 && cellsBroken[0])
        *broken = 1;
    const Cell along = cellsAlong(edges), home = cellOf(here.x, here.y, here.z, edges, along);
    const int nx = atMost(along.x, 3), ny = atMost(along.y, 3), nz = atMost(along.z, 3);
    for (int task = LOCAL_ID/32; task < nx*ny*nz; task += DESCRIBE_GROUP/32) {
        int x = beside(home.x, task%nx-(nx == 3), along.x), y = beside(home.y, task/nx%ny-(ny == 3), along.y),
            z = beside(home.z, task/(nx*ny)-(nz == 3), along.z);
        int cell = (z*along.y+y)*along.x+x, end = cellStart[cell+1];
        for (int slot = cellStart[cell]+LOCAL_ID%32; slot < end; slot += 32) {
            real4 there = cellPlaces[slot];
            int j = cellAtoms[slot];
#else
#pragma unroll 4
    for (int j = LOCAL_ID; j < NUM_ATOMS; j += DESCRIBE_GROUP) {
        {
            int particle = particles[j];
            real4 there = posq[particle < 0 ? 0 : particle];
#if NUM_CAPS > 0
            if (particle < 0) {
                mixed3 cap = atomPosition(posq, correction, particles, capParticles, capDistances, j, boxA, boxB, boxC);
                there = make_real4((real) cap.x, (real) cap.y, (real) cap.z, 0);
            }
#endif
#endif
            if (!IS_NEIGHBOUR(row, own, j))
                continue;
            char flag = mayBeNear(there.x-(real) here.x, there.y-(real) here.y, there.z-(real) here.z, edges);
            if (flag == 2)
                *broken = 1;
            if (flag == 1) {
                int place = ATOMIC_ADD(count, 1);
                if (place < MOST_NEAR)
                    found[place] = j;
                else
                    *broken = 1;
            }
        }
    }
}

DEVICE int sumOf(LOCAL_ARG const int* numbers, int count) {
    int sum = 0;
    for (int i = 0; i < count; i++)
        sum += numbers[i];
    return sum;
}

/**
 * Neighbours of one centre, by one group; lists in the order of the atoms, whatever the order in which they are found.
 * radialRoom and angularRoom: places in each list; where that is too little, the list is cut, and the status says so.
 * wanted: neighbours of each centre, whatever the room. near: 3*MOST_NEAR numbers.
 * broken: whether a position is no number, or is that of another atom.
 *
 * Those that may be near are collected by quick arithmetic; the few of them get exact distances. A threshold within
 * rounding of the cutoff does not matter: the cutoff function is zero there, and so is its slope.
 */
DEVICE void listNeighbours(int row, mixed4 boxA, mixed4 boxB, mixed4 boxC, int radialRoom, int angularRoom,
        GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
        GLOBAL const int* RESTRICT particles, GLOBAL const int* RESTRICT capParticles,
        GLOBAL const mixed* RESTRICT capDistances, GLOBAL const int* RESTRICT centres,
        GLOBAL const int* RESTRICT speciesStart, GLOBAL real4* radial, GLOBAL real2* radialCut, GLOBAL int* radialAtom,
        GLOBAL real4* angular, GLOBAL real2* angularCut, GLOBAL int* angularAtom, GLOBAL int* starts,
        GLOBAL int* RESTRICT wanted, GLOBAL int* RESTRICT status, LOCAL_ARG int* near, LOCAL_ARG int* count,
        LOCAL_ARG int* broken CELLS_ARGUMENT SIDES_ARGUMENT) {
    const Edges edges = edgesOf(boxA, boxB, boxC);
    const int own = centres[row];
    const mixed3 here = atomPosition(posq, correction, particles, capParticles, capDistances, own, boxA, boxB, boxC);
    LOCAL_ARG int* unsorted = near;
    LOCAL_ARG int* found = near+MOST_NEAR;
    LOCAL_ARG int* isAngular = near+2*MOST_NEAR;
    if (LOCAL_ID == 0) {
        *broken = isNoNumber((real) (here.x+here.y+here.z));
        *count = 0;
    }
    SYNC_THREADS;
    collectNear(row, own, here, edges, boxA, boxB, boxC, posq, correction, particles, capParticles, capDistances,
        unsorted, count, broken CELLS_GIVEN SIDES_GIVEN);
    SYNC_THREADS;
    const int all = atMost(*count, MOST_NEAR);
    for (int k = LOCAL_ID; k < all; k += DESCRIBE_GROUP) {
        int j = unsorted[k], place = 0;
        for (int i = 0; i < all; i++)
            place += (unsorted[i] < j);
        found[place] = j;
    }
    SYNC_THREADS;
    for (int k = LOCAL_ID; k < all; k += DESCRIBE_GROUP) {
        const int j = found[k];
        mixed3 there = atomPosition(posq, correction, particles, capParticles, capDistances, j, boxA, boxB, boxC);
        mixed3 d = separation(here, there, boxA, boxB, boxC);
        const real x = (real) (LENGTH*d.x), y = (real) (LENGTH*d.y), z = (real) (LENGTH*d.z);
        const real squared = x*x+y*y+z*z, r = SQRT(squared);
        // On top of each other.
        if (squared <= NUMBER(1e-12))
            *broken = 1;
        isAngular[k] = (squared < ANGULAR_CUTOFF*ANGULAR_CUTOFF);
        if (k < radialRoom) {
            radial[row*radialRoom+k] = make_real4(x/r, y/r, z/r, r);
            radialCut[row*radialRoom+k] = (r < RADIAL_CUTOFF ? cutoffFunction(r, RADIAL_CUTOFF) : make_real2(0, 0));
            radialAtom[row*radialRoom+k] = j;
        }
    }
    SYNC_THREADS;
    // How many of those before it are near enough for angles; the unsorted numbers are not needed any more.
    LOCAL_ARG int* before = unsorted;
    for (int k = LOCAL_ID; k < all; k += DESCRIBE_GROUP) {
        const int place = sumOf(isAngular, k);
        before[k] = place;
        if (isAngular[k] && k < radialRoom && place < angularRoom) {
            const real4 u = radial[row*radialRoom+k];
            angular[row*angularRoom+place] = u;
            angularCut[row*angularRoom+place] = cutoffFunction(u.w, ANGULAR_CUTOFF);
            angularAtom[row*angularRoom+place] = found[k];
        }
    }
    // PoCL 3.1 leaves out the first of two such loops with nothing between them.
    SYNC_THREADS;
    // Where each element begins.
    for (int s = LOCAL_ID; s <= NUM_SPECIES; s += DESCRIBE_GROUP) {
        const int start = (s < NUM_SPECIES ? speciesStart[s] : NUM_ATOMS);
        int numRadial = 0;
        for (int end = all; numRadial < end;) {
            const int middle = (numRadial+end)/2;
            if (found[middle] < start)
                numRadial = middle+1;
            else
                end = middle;
        }
        const int last = atMost(numRadial, radialRoom)-1;
        const int numAngular = (numRadial == 0 ? 0 : before[numRadial-1]+isAngular[numRadial-1]);
        const int listed = (last < 0 ? 0 : before[last]+isAngular[last]);
        starts[(2*row)*(NUM_SPECIES+1)+s] = atMost(numRadial, radialRoom);
        starts[(2*row+1)*(NUM_SPECIES+1)+s] = atMost(listed, angularRoom);
        if (s == NUM_SPECIES) {
            wanted[2*row] = all;
            wanted[2*row+1] = numAngular;
            if (all > radialRoom || numAngular > angularRoom)
                status[1] = 1;
        }
    }
    SYNC_THREADS;
}

)KERNEL";
