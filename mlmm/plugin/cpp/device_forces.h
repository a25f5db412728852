// Device code of the forces, in OpenMM's common dialect; it stands behind that of the symmetry functions.
//
// Gradients in kJ/mol/nm, summed in OpenMM's fixed point: the same bits in any order.
#pragma once

static const char* const kDeviceForces = R"KERNEL(

DEVICE mm_long fixedPoint(real value) {
    return (mm_long) (value*0x100000000);
}

typedef struct {
    mm_long x, y, z;
} FixedVector;

#define SUM_SHARES 8

/**
 * The sum over all threads of a group, known to the first of them; each of SUM_SHARES threads adds up some first.
 * parts: 3*size numbers. Whatever the threads wrote to local memory before is there afterwards.
 */
DEVICE FixedVector sumOverGroup(LOCAL_ARG mm_long* parts, const int size, mm_long x, mm_long y, mm_long z) {
    FixedVector sum;
    sum.x = 0; sum.y = 0; sum.z = 0;
    parts[LOCAL_ID] = x;
    parts[size+LOCAL_ID] = y;
    parts[2*size+LOCAL_ID] = z;
    SYNC_THREADS;
    if (LOCAL_ID < SUM_SHARES)
        for (int t = LOCAL_ID; t < size; t += SUM_SHARES) {
            sum.x += parts[t]; sum.y += parts[size+t]; sum.z += parts[2*size+t];
        }
    SYNC_THREADS;
    if (LOCAL_ID < SUM_SHARES) {
        parts[LOCAL_ID] = sum.x;
        parts[size+LOCAL_ID] = sum.y;
        parts[2*size+LOCAL_ID] = sum.z;
    }
    SYNC_THREADS;
    if (LOCAL_ID == 0)
#pragma unroll
        for (int t = 1; t < SUM_SHARES; t++) {
            sum.x += parts[t]; sum.y += parts[size+t]; sum.z += parts[2*size+t];
        }
    return sum;
}

#if NUM_CAPS > 0
#define CAPS_ARGUMENT , mixed4 boxA, mixed4 boxB, mixed4 boxC, GLOBAL const real4* RESTRICT posq, \
    GLOBAL const real4* RESTRICT correction, GLOBAL const int* RESTRICT capParticles, \
    GLOBAL const mixed* RESTRICT capDistances
#define CAPS_GIVEN , boxA, boxB, boxC, posq, correction, capParticles, capDistances
#else
#define CAPS_ARGUMENT
#define CAPS_GIVEN
#endif

DEVICE void pull(GLOBAL mm_ulong* RESTRICT forces, int particle, mm_long x, mm_long y, mm_long z) {
    ATOMIC_ADD(&forces[particle], (mm_ulong) x);
    ATOMIC_ADD(&forces[particle+PADDED_NUM_ATOMS], (mm_ulong) y);
    ATOMIC_ADD(&forces[particle+2*PADDED_NUM_ATOMS], (mm_ulong) z);
}

/**
 * Adds minus a gradient to the force on an atom; that on a cap goes to both particles of its bond, of what is along the
 * bond all to the outer one.
 */
DEVICE void push(GLOBAL mm_ulong* RESTRICT forces, int particle, mm_long x, mm_long y, mm_long z CAPS_ARGUMENT) {
#if NUM_CAPS > 0
    if (particle < 0) {
        int cap = -1-particle, outer = capParticles[2*cap], inner = capParticles[2*cap+1];
        mixed3 d = separation(particlePosition(posq, correction, outer), particlePosition(posq, correction, inner),
            boxA, boxB, boxC);
        mixed inverse = 1/sqrt(d.x*d.x+d.y*d.y+d.z*d.z);
        mixed ux = d.x*inverse, uy = d.y*inverse, uz = d.z*inverse;
        mixed along = x*ux+y*uy+z*uz, scale = capDistances[cap]*inverse;
        mm_long innerX = (mm_long) (scale*(x-along*ux)), innerY = (mm_long) (scale*(y-along*uy)),
            innerZ = (mm_long) (scale*(z-along*uz));
        pull(forces, inner, -innerX, -innerY, -innerZ);
        pull(forces, outer, innerX-x, innerY-y, innerZ-z);
        return;
    }
#endif
    pull(forces, particle, -x, -y, -z);
}

/**
 * One group for each centre: from the gradient in its symmetry functions to that in the positions of its
 * neighbours.
 * A pair of neighbours is met from both sides, so that each thread has the whole gradient of one neighbour.
 */
KERNEL AT_MOST(FORCE_GROUP) void addForces(mixed4 boxA, mixed4 boxB, mixed4 boxC, int radialRoom, int angularRoom,
        GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
        GLOBAL const int* RESTRICT capParticles, GLOBAL const mixed* RESTRICT capDistances,
        GLOBAL const real4* RESTRICT radial, GLOBAL const real2* RESTRICT radialCut,
        GLOBAL const int* RESTRICT radialAtom, GLOBAL const real4* RESTRICT angular,
        GLOBAL const real2* RESTRICT angularCut, GLOBAL const int* RESTRICT angularAtom,
        GLOBAL const int* RESTRICT starts, GLOBAL const real* RESTRICT constants, GLOBAL const real* RESTRICT slopes,
        GLOBAL const int* RESTRICT particles, GLOBAL const int* RESTRICT centres,
        GLOBAL mm_ulong* RESTRICT forces ROW_COUNTS_ARGUMENT) {
    LOCAL real byFunction[FUNCTIONS];
    LOCAL mm_long parts[3*FORCE_GROUP];
    GLOBAL const real* RESTRICT etaRadial = constants;
    GLOBAL const real* RESTRICT shiftRadial = etaRadial+NUM_RADIAL;
    GLOBAL const real* RESTRICT etaMean = shiftRadial+NUM_RADIAL;
    GLOBAL const real* RESTRICT shiftMean = etaMean+NUM_MEANS;
    GLOBAL const real* RESTRICT zeta = shiftMean+NUM_MEANS;
    GLOBAL const real* RESTRICT halfCos = zeta+NUM_ANGLES;
    GLOBAL const real* RESTRICT halfSin = halfCos+NUM_ANGLES;
    for (int row = GROUP_ID; row < ROW_COUNT; row += NUM_GROUPS) {
        for (int k = LOCAL_ID; k < FUNCTIONS; k += FORCE_GROUP) {
            real sum = 0;
#pragma unroll 8
            for (int m = 0; m < MEMBERS; m++)
                sum += slopes[(m*NUM_CENTRES+row)*FUNCTIONS+k];
            byFunction[k] = LENGTH*sum;
        }
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
                along += byFunction[s*NUM_RADIAL+k]*exponential(-etaRadial[k]*d*d)*(f.y-2*etaRadial[k]*d*f.x);
            }
            along *= NUMBER(0.25);
            mm_long x = fixedPoint(along*u.x), y = fixedPoint(along*u.y), z = fixedPoint(along*u.z);
            push(forces, particles[radialAtom[row*radialRoom+i]], x, y, z CAPS_GIVEN);
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
                    real d = mean-shiftMean[k], e = exponential(-etaMean[k]*d*d);
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
            mm_long x = fixedPoint(gx+byRadius*u.x), y = fixedPoint(gy+byRadius*u.y),
                z = fixedPoint(gz+byRadius*u.z);
            push(forces, particles[angularAtom[row*angularRoom+i]], x, y, z CAPS_GIVEN);
            sumX += x; sumY += y; sumZ += z;
        }
        FixedVector sum = sumOverGroup(parts, FORCE_GROUP, sumX, sumY, sumZ);
        if (LOCAL_ID == 0)
            push(forces, particles[centres[row]], -sum.x, -sum.y, -sum.z CAPS_GIVEN);
        SYNC_THREADS;
    }
}

)KERNEL";
