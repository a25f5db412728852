// Device code of force-field pairs, in OpenMM's common dialect: those that the networks replace, as in
// mlmm/kernels/cpp/pairs.h, and those inside the core, as in region_pairs.h. It stands behind that of the zone.
//
// Each group has one atom, and meets a pair of two such atoms from both sides. Energies in kJ/mol, lengths in nm, in
// mixed precision: atoms of one molecule may be so near that what is added and taken away is larger than what remains.
#pragma once

static const char* const kDevicePairs = R"KERNEL(

/**
 * The vector between two particles, to the nearest image where it wraps.
 */
DEVICE mixed3 vectorBetween(GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction, int from,
        int to, int wraps, mixed4 boxA, mixed4 boxB, mixed4 boxC) {
    mixed3 a = particlePosition(posq, correction, from), b = particlePosition(posq, correction, to);
    return (wraps ? separation(a, b, boxA, boxB, boxC) : make_mixed3(b.x-a.x, b.y-a.y, b.z-a.z));
}

/**
 * Whether a pair may be nearer than R_OFF, which what is no number may.
 */
DEVICE int mayInteract(real4 from, real4 to, Edges edges) {
    real squared = quickSquare(to.x-from.x, to.y-from.y, to.z-from.z, PAIRS_WRAP, edges);
    return !(squared >= NUMBER(1.001)*((real) (R_OFF*R_OFF)));
}

/**
 * 1-x^3 (10-15x+6x^2) between on and on+width, and its slope.
 */
DEVICE mixed2 switchingFunction(mixed r, mixed on, mixed width) {
    mixed x = (r-on)/width;
    x = (x < 0 ? (mixed) 0 : (x > 1 ? (mixed) 1 : x));
    return make_mixed2(1-x*x*x*(10-x*(15-6*x)), -30*x*x*(1-x)*(1-x)/width);
}

/**
 * Lennard-Jones and its slope by r.
 */
DEVICE mixed2 lennardJones(mixed r, mixed sigma, mixed epsilon) {
    mixed ratio = sigma/r, sixth = ratio*ratio*ratio;
    sixth *= sixth;
    return make_mixed2(4*epsilon*(sixth*sixth-sixth), -24*epsilon*(2*sixth*sixth-sixth)/r);
}

DEVICE mixed2 switched(mixed2 energy, mixed2 by) {
    return make_mixed2(energy.x*by.x, energy.y*by.x+energy.x*by.y);
}

/**
 * f(r) Lennard-Jones + K q q (1/r - its smooth tail), zero beyond R_OFF, and its slope by r.
 */
DEVICE mixed2 shortPair(mixed r, mixed charges, mixed sigma, mixed epsilon, int fieldSwitch) {
    mixed2 wells = switched(lennardJones(r, sigma, epsilon), switchingFunction(r, R_ON, R_OFF-R_ON));
#ifdef FIELD_SWITCH_ON
    if (fieldSwitch)
        wells = switched(wells, switchingFunction(r, FIELD_SWITCH_ON, FIELD_SWITCH_WIDTH));
#endif
    mixed u = r/R_OFF, s = u*u, k = COULOMB*charges, inverse = 1/r;
    mixed tail = (35-s*(35-s*(21-5*s)))/(16*R_OFF), tailSlope = -u*(70-s*(84-30*s))/(16*R_OFF*R_OFF);
    return make_mixed2(wells.x+k*(inverse-tail), wells.y-k*(inverse*inverse+tailSlope));
}

/**
 * One group for each atom that may have a weight: minus sum (w_i+w_j)/2 V_ij with all others that the networks
 * replace pairs of. parameters: charge, half sigma, root of epsilon.
 */
KERNEL AT_MOST(PAIR_GROUP) void replacedPairs(mixed4 boxA, mixed4 boxB, mixed4 boxC, int includeEnergy,
        GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction, GLOBAL const int* RESTRICT owned,
        GLOBAL const int* RESTRICT pairAtoms, GLOBAL const real4* RESTRICT parameters,
        GLOBAL const int* RESTRICT specialStart, GLOBAL const int* RESTRICT specialOther,
        GLOBAL const mixed* RESTRICT weights, GLOBAL const int* RESTRICT moleculeOf,
        GLOBAL mm_ulong* RESTRICT byLambda, GLOBAL mm_ulong* RESTRICT forces, GLOBAL mixed* RESTRICT energyBuffer) {
    LOCAL mixed halves[PAIR_GROUP], sums[PAIR_GROUP];
    LOCAL mm_long pulls[3*PAIR_GROUP];
    const Edges edges = edgesOf(boxA, boxB, boxC);
    mixed total = 0;
    for (int k = GROUP_ID; k < NUM_PAIR_ATOMS; k += NUM_GROUPS) {
        const int i = pairAtoms[k];
        const mixed own = weights[i];
        // The same for the whole group.
        if (own == 0)
            continue;
        const real4 mine = parameters[i], here = posq[i];
        const int firstSpecial = specialStart[i], lastSpecial = specialStart[i+1];
        mm_long pullX = 0, pullY = 0, pullZ = 0;
        mixed shared = 0, weighted = 0;
        for (int n = LOCAL_ID; n < NUM_OWNED; n += PAIR_GROUP) {
            const int j = owned[n];
            if (!mayInteract(here, posq[j], edges))
                continue;
            mixed3 d = vectorBetween(posq, correction, i, j, PAIRS_WRAP, boxA, boxB, boxC);
            mixed squared = d.x*d.x+d.y*d.y+d.z*d.z;
            if (squared >= R_OFF*R_OFF || j == i)
                continue;
            int special = 0;
            for (int s = firstSpecial; s < lastSpecial; s++)
                special |= (specialOther[s] == j);
            if (special)
                continue;
            real4 other = parameters[j];
            mixed r = sqrt(squared), weight = (own+weights[j])/2;
            mixed2 pair = shortPair(r, (mixed) mine.x*other.x, (mixed) mine.y+other.y, (mixed) mine.z*other.z, 1);
            mixed along = weight*pair.y/r;
            mm_long x = fixedMixed(along*d.x), y = fixedMixed(along*d.y), z = fixedMixed(along*d.z);
            pullX -= x; pullY -= y; pullZ -= z;
            shared += pair.x/2;
            // An atom without weight has no group of its own that would meet the pair.
            weighted += (weights[j] == 0 ? weight : weight/2)*pair.x;
            if (weights[j] == 0)
                pull(forces, j, x, y, z);
        }
        halves[LOCAL_ID] = shared;
        sums[LOCAL_ID] = weighted;
        FixedVector whole = sumOverGroup(pulls, PAIR_GROUP, pullX, pullY, pullZ);
        if (LOCAL_ID == 0) {
            for (int t = 1; t < PAIR_GROUP; t++) {
                shared += halves[t];
                weighted += sums[t];
            }
            pull(forces, i, whole.x, whole.y, whole.z);
            total -= weighted;
            if (moleculeOf[i] >= 0)
                ATOMIC_ADD(&byLambda[moleculeOf[i]], (mm_ulong) -fixedMixed(shared));
        }
        SYNC_THREADS;
    }
    if (includeEnergy && LOCAL_ID == 0)
        energyBuffer[GROUP_ID] += total;
}

#if NUM_CORE > 1
/**
 * One group for each atom of the core: what a NonbondedForce holds for the pairs inside it, in full.
 */
KERNEL AT_MOST(PAIR_GROUP) void corePairs(mixed4 boxA, mixed4 boxB, mixed4 boxC, int includeEnergy,
        GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction, GLOBAL const int* RESTRICT core,
        GLOBAL const real4* RESTRICT parameters, GLOBAL const int* RESTRICT coreStart,
        GLOBAL const int* RESTRICT coreOther, GLOBAL mm_ulong* RESTRICT forces, GLOBAL mixed* RESTRICT energyBuffer) {
    LOCAL mixed sums[PAIR_GROUP];
    LOCAL mm_long pulls[3*PAIR_GROUP];
    mixed total = 0;
    for (int k = GROUP_ID; k < NUM_CORE; k += NUM_GROUPS) {
        const int i = core[k];
        const real4 mine = parameters[i];
        mm_long pullX = 0, pullY = 0, pullZ = 0;
        mixed sum = 0;
        for (int n = LOCAL_ID; n < NUM_CORE; n += PAIR_GROUP) {
            int special = (n == k);
            for (int s = coreStart[k]; s < coreStart[k+1]; s++)
                special |= (coreOther[s] == n);
            if (special)
                continue;
            mixed3 d = vectorBetween(posq, correction, i, core[n], PAIRS_WRAP, boxA, boxB, boxC);
            mixed squared = d.x*d.x+d.y*d.y+d.z*d.z;
            real4 other = parameters[core[n]];
            mixed r = sqrt(squared), charge = (mixed) COULOMB*mine.x*other.x/r, bend = 0;
            mixed2 wells = make_mixed2(0, 0);
#ifdef CORE_CUTOFF
            if (squared >= CORE_CUTOFF*CORE_CUTOFF) {
                // What the mesh holds, or nothing.
                mixed x = CORE_ALPHA*r;
                bend = charge*TWO_BY_ROOT_PI*x*exp(-x*x);
                charge *= erf(x);
            }
            else
#endif
            {
                wells = lennardJones(r, (mixed) mine.y+other.y, (mixed) mine.z*other.z);
#ifdef CORE_SWITCH_ON
                wells = switched(wells, switchingFunction(r, CORE_SWITCH_ON, CORE_SWITCH_WIDTH));
#endif
            }
            mixed along = (wells.y*r+bend-charge)/squared;
            pullX += fixedMixed(along*d.x); pullY += fixedMixed(along*d.y); pullZ += fixedMixed(along*d.z);
            sum += (wells.x+charge)/2;
        }
        sums[LOCAL_ID] = sum;
        FixedVector whole = sumOverGroup(pulls, PAIR_GROUP, pullX, pullY, pullZ);
        if (LOCAL_ID == 0) {
            for (int t = 1; t < PAIR_GROUP; t++)
                sum += sums[t];
            pull(forces, i, whole.x, whole.y, whole.z);
            total += sum;
        }
        SYNC_THREADS;
    }
    if (includeEnergy && LOCAL_ID == 0)
        energyBuffer[GROUP_ID] += total;
}
#endif

)KERNEL";
