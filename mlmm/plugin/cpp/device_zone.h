// Device code of an adaptive zone, in OpenMM's common dialect: lambda of molecules, and the force that it exerts; as in
// zone_weights.h. It stands behind that of the forces. Lengths in nm. In mixed precision: lambda weighs terms and pairs
// that are larger than what remains of them.
#pragma once

static const char* const kDeviceZone = R"KERNEL(

// In this order what is no number stays so.
DEVICE mixed clamped(mixed x) {
    return (x < 0 ? (mixed) 0 : (x > 1 ? (mixed) 1 : x));
}

DEVICE mixed smoothStep(mixed x) {
    return x*x*x*(10-x*(15-6*x));
}

DEVICE mm_long fixedMixed(mixed value) {
    return (mm_long) (value*0x100000000);
}

DEVICE mixed3 anchorOf(GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
        GLOBAL const int* RESTRICT moleculeAtoms, GLOBAL const mixed* RESTRICT anchors, int first, int last,
        mixed4 boxA, mixed4 boxB, mixed4 boxC) {
    mixed3 base = particlePosition(posq, correction, moleculeAtoms[first]);
    mixed x = base.x, y = base.y, z = base.z;
    for (int i = first+1; i < last; i++)
        if (anchors[i] != 0) {
            mixed3 d = separation(base, particlePosition(posq, correction, moleculeAtoms[i]), boxA, boxB, boxC);
            x += anchors[i]*d.x; y += anchors[i]*d.y; z += anchors[i]*d.z;
        }
    return make_mixed3(x, y, z);
}

#ifndef UNIFORM
/**
 * lambda of each molecule, and so the weights of its atoms, and of them as candidates of the networks.
 */
KERNEL void zoneWeights(mixed4 boxA, mixed4 boxB, mixed4 boxC, GLOBAL const real4* RESTRICT posq,
        GLOBAL const real4* RESTRICT correction, GLOBAL const int* RESTRICT moleculeStart,
        GLOBAL const int* RESTRICT moleculeAtoms, GLOBAL const mixed* RESTRICT anchors,
        GLOBAL const int* RESTRICT centreAtoms, GLOBAL const int* RESTRICT moleculeCandidates,
        GLOBAL mixed* RESTRICT lambdas, GLOBAL mixed* RESTRICT weights, GLOBAL real* RESTRICT candidateWeights,
        GLOBAL mm_ulong* RESTRICT byLambda) {
    for (int m = GLOBAL_ID; m < NUM_MOLECULES; m += GLOBAL_SIZE) {
        int first = moleculeStart[m], last = moleculeStart[m+1];
        mixed3 anchor = anchorOf(posq, correction, moleculeAtoms, anchors, first, last, boxA, boxB, boxC);
        mixed outside = 1;
        for (int a = 0; a < NUM_CENTRE_ATOMS; a++) {
            mixed3 d = separation(particlePosition(posq, correction, centreAtoms[a]), anchor, boxA, boxB, boxC);
            real x = (real) d.x, y = (real) d.y, z = (real) d.z;
            // Most are beyond it, and some devices take long for a root in double precision.
            if (!(x*x+y*y+z*z > NUMBER(1.0001)*((real) ((PLATEAU+WIDTH)*(PLATEAU+WIDTH)))))
                outside *= smoothStep(clamped((sqrt(d.x*d.x+d.y*d.y+d.z*d.z)-PLATEAU)/WIDTH));
        }
        mixed lambda = 1-outside;
        lambdas[m] = lambda;
        byLambda[m] = 0;
        for (int i = first; i < last; i++) {
            weights[moleculeAtoms[i]] = lambda;
            if (moleculeCandidates[i] >= 0)
                candidateWeights[moleculeCandidates[i]] = (real) lambda;
        }
    }
}
#endif

/**
 * One group for each molecule: -lambda a - G(lambda), and -dE/dlambda dlambda/dr on its anchor and the centres.
 * byLambda holds what the force field adds to dE/dlambda; energies of its rows by each member, by the networks.
 */
KERNEL AT_MOST(ZONE_GROUP) void zoneForces(mixed4 boxA, mixed4 boxB, mixed4 boxC, int includeEnergy,
        GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
        GLOBAL const int* RESTRICT moleculeStart, GLOBAL const int* RESTRICT moleculeAtoms,
        GLOBAL const mixed* RESTRICT anchors, GLOBAL const int* RESTRICT centreAtoms,
        GLOBAL const int* RESTRICT moleculeCandidates, GLOBAL const int* RESTRICT rowOf,
        GLOBAL const real* RESTRICT energies, GLOBAL const mixed* RESTRICT lambdas,
        GLOBAL const mm_ulong* RESTRICT byLambda, GLOBAL const int* RESTRICT kinds,
        GLOBAL const mixed* RESTRICT alignment, GLOBAL const mixed* RESTRICT knots,
        GLOBAL const mixed* RESTRICT knotValues, GLOBAL const mixed* RESTRICT knotSlopes,
        GLOBAL mm_ulong* RESTRICT forces, GLOBAL mixed* RESTRICT energyBuffer) {
    LOCAL mixed parts[ZONE_GROUP], products[ZONE_GROUP];
    LOCAL mm_long pushes[3*ZONE_GROUP];
    mixed total = 0;
    for (int m = GROUP_ID; m < NUM_MOLECULES; m += NUM_GROUPS) {
        const mixed lambda = lambdas[m];
        const int first = moleculeStart[m], last = moleculeStart[m+1];
        // -lambda a - G(lambda), a cubic Hermite polynomial between two knots.
        int knot = 0;
        while (knot < NUM_KNOTS-2 && lambda >= knots[knot+1])
            knot++;
        const int place = kinds[m]*NUM_KNOTS+knot;
        const mixed h = knots[knot+1]-knots[knot], t = (lambda-knots[knot])/h, a = alignment[kinds[m]];
        const mixed v0 = knotValues[place], v1 = knotValues[place+1], s0 = knotSlopes[place]*h,
            s1 = knotSlopes[place+1]*h;
        const mixed square = 3*(v1-v0)-2*s0-s1, cube = 2*(v0-v1)+s0+s1;
        total -= lambda*a+v0+t*(s0+t*(square+t*cube));
#ifndef UNIFORM
        // The same for the whole group; lambda is flat at both ends.
        if (!(lambda > 0 && lambda < 1))
            continue;
        mixed sum = 0;
        for (int i = LOCAL_ID; i < (last-first)*MEMBERS; i += ZONE_GROUP) {
            int atom = first+i/MEMBERS, member = i%MEMBERS;
            int row = (moleculeCandidates[atom] < 0 ? -1 : rowOf[moleculeCandidates[atom]]);
            if (row >= 0)
                sum += energies[member*NUM_CENTRES+row];
        }
        mixed3 anchor = anchorOf(posq, correction, moleculeAtoms, anchors, first, last, boxA, boxB, boxC);
        mixed product = 1;
        for (int c = LOCAL_ID; c < NUM_CENTRE_ATOMS; c += ZONE_GROUP) {
            mixed3 d = separation(particlePosition(posq, correction, centreAtoms[c]), anchor, boxA, boxB, boxC);
            product *= smoothStep(clamped((sqrt(d.x*d.x+d.y*d.y+d.z*d.z)-PLATEAU)/WIDTH));
        }
        parts[LOCAL_ID] = sum;
        products[LOCAL_ID] = product;
        SYNC_THREADS;
        sum = 0;
        product = 1;
        for (int k = 0; k < ZONE_GROUP; k++) {
            sum += parts[k];
            product *= products[k];
        }
        const mixed slope = sum/MEMBERS+((mixed) (mm_long) byLambda[m])/(mixed) 0x100000000-a
            -(s0+t*(2*square+3*t*cube))/h;
        mm_long wholeX = 0, wholeY = 0, wholeZ = 0;
        for (int c = LOCAL_ID; c < NUM_CENTRE_ATOMS; c += ZONE_GROUP) {
            mixed3 d = separation(particlePosition(posq, correction, centreAtoms[c]), anchor, boxA, boxB, boxC);
            mixed r = sqrt(d.x*d.x+d.y*d.y+d.z*d.z), s = clamped((r-PLATEAU)/WIDTH), g = smoothStep(s);
            if (s == 0 || s == 1 || g == 0)
                continue;
            // lambda falls with the distance.
            mixed along = slope*(product/g)*(30*s*s*(1-s)*(1-s)/WIDTH)/r;
            mm_long pushX = fixedMixed(along*d.x), pushY = fixedMixed(along*d.y), pushZ = fixedMixed(along*d.z);
            wholeX += pushX; wholeY += pushY; wholeZ += pushZ;
            pull(forces, centreAtoms[c], -pushX, -pushY, -pushZ);
        }
        const FixedVector whole = sumOverGroup(pushes, ZONE_GROUP, wholeX, wholeY, wholeZ);
        if (LOCAL_ID == 0) {
            // Shares of the atoms that carry the anchor; the first has the rest, so that nothing is lost.
            FixedVector rest = whole;
            for (int i = first+1; i < last; i++)
                if (anchors[i] != 0) {
                    mm_long x = (mm_long) (anchors[i]*whole.x), y = (mm_long) (anchors[i]*whole.y),
                        z = (mm_long) (anchors[i]*whole.z);
                    rest.x -= x; rest.y -= y; rest.z -= z;
                    pull(forces, moleculeAtoms[i], x, y, z);
                }
            pull(forces, moleculeAtoms[first], rest.x, rest.y, rest.z);
        }
        SYNC_THREADS;
#endif
    }
    if (includeEnergy && LOCAL_ID == 0)
        energyBuffer[GROUP_ID] += total;
}

)KERNEL";
