// Device code of force-field terms with fixed atoms, in OpenMM's common dialect: formulas as in mm_terms.h. It stands
// behind that of the pairs.
//
// A term of the networks' atoms counts as minus its energy times the mean weight of its atoms, each of which has its
// share of it in dE/dlambda. Terms lie class by class: their particles and whether they wrap; their parameters. They
// are few, and angles on nearly straight bonds lose digits: all of it is in mixed precision.
#pragma once

static const char* const kDeviceTerms = R"KERNEL(

// The smallest square of a cross product that still spans a plane, nm^4.
#define LINE ((mixed) NUMBER(1e-24))

DEVICE mixed3 scaled(mixed3 a, mixed s) {
    return make_mixed3(s*a.x, s*a.y, s*a.z);
}

DEVICE mixed3 added(mixed3 a, mixed3 b) {
    return make_mixed3(a.x+b.x, a.y+b.y, a.z+b.z);
}

DEVICE mixed inner(mixed3 a, mixed3 b) {
    return a.x*b.x+a.y*b.y+a.z*b.z;
}

DEVICE mixed3 outer(mixed3 a, mixed3 b) {
    return make_mixed3(a.y*b.z-a.z*b.y, a.z*b.x-a.x*b.z, a.x*b.y-a.y*b.x);
}

/**
 * Adds minus a derivative by the vector from one particle to another.
 */
DEVICE void act(GLOBAL mm_ulong* RESTRICT forces, int from, int to, mixed3 slope) {
    mm_long x = fixedMixed(slope.x), y = fixedMixed(slope.y),
        z = fixedMixed(slope.z);
    pull(forces, from, x, y, z);
    pull(forces, to, -x, -y, -z);
}

/**
 * Of three consecutive bonds: value in (-pi, pi], IUPAC sign, and its gradient; zero on a line.
 */
typedef struct {
    mixed value;
    mixed3 first, second, third;
} Dihedral;

DEVICE Dihedral dihedralOf(GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
        GLOBAL const int* RESTRICT i, int wraps, mixed4 boxA, mixed4 boxB, mixed4 boxC) {
    mixed3 b1 = vectorBetween(posq, correction, i[0], i[1], wraps, boxA, boxB, boxC);
    mixed3 b2 = vectorBetween(posq, correction, i[1], i[2], wraps, boxA, boxB, boxC);
    mixed3 b3 = vectorBetween(posq, correction, i[2], i[3], wraps, boxA, boxB, boxC);
    mixed3 left = outer(b1, b2), right = outer(b2, b3);
    mixed l = inner(left, left), r = inner(right, right), middle = sqrt(inner(b2, b2));
    Dihedral phi;
    if (l < LINE || r < LINE) {
        phi.value = 0;
        phi.first = phi.second = phi.third = make_mixed3(0, 0, 0);
        return phi;
    }
    phi.value = atan2(middle*inner(b1, right), inner(left, right));
    phi.first = scaled(left, middle/l);
    phi.third = scaled(right, middle/r);
    // A. Blondel, M. Karplus, J. Comput. Chem. 17, 1132 (1996), eq. 27, without a division by a sine.
    phi.second = added(scaled(left, -inner(b1, b2)/(l*middle)), scaled(right, -inner(b2, b3)/(r*middle)));
    return phi;
}

DEVICE void twist(GLOBAL mm_ulong* RESTRICT forces, GLOBAL const int* RESTRICT i, Dihedral phi, mixed slope) {
    act(forces, i[0], i[1], scaled(phi.first, slope));
    act(forces, i[1], i[2], scaled(phi.second, slope));
    act(forces, i[2], i[3], scaled(phi.third, slope));
}

DEVICE mixed meanWeight(GLOBAL const mixed* RESTRICT weights, GLOBAL const int* RESTRICT atoms, int n) {
    mixed sum = 0;
    for (int k = 0; k < n; k++)
        sum += weights[atoms[k]];
    return sum/n;
}

DEVICE void give(GLOBAL mm_ulong* RESTRICT byLambda, GLOBAL const int* RESTRICT moleculeOf, int atom, mixed energy) {
    if (moleculeOf[atom] >= 0)
        ATOMIC_ADD(&byLambda[moleculeOf[atom]], (mm_ulong) -fixedMixed(energy));
}

/**
 * One thread for each term.
 */
KERNEL void replacedTerms(mixed4 boxA, mixed4 boxB, mixed4 boxC, int includeEnergy, GLOBAL const real4* RESTRICT posq,
        GLOBAL const real4* RESTRICT correction, GLOBAL const int* RESTRICT termAtoms,
        GLOBAL const mixed* RESTRICT termNumbers, GLOBAL const int* RESTRICT cmapPlace,
        GLOBAL const mixed* RESTRICT cmapPatches, GLOBAL const mixed* RESTRICT weights,
        GLOBAL const int* RESTRICT moleculeOf, GLOBAL mm_ulong* RESTRICT byLambda, GLOBAL mm_ulong* RESTRICT forces,
        GLOBAL mixed* RESTRICT energyBuffer) {
    mixed total = 0;
    for (int term = GLOBAL_ID; term < NUM_TERMS; term += GLOBAL_SIZE) {
        int t = term, n = 2;
        GLOBAL const int* RESTRICT i = termAtoms;
        GLOBAL const mixed* RESTRICT p = termNumbers;
        mixed weight, value = 0;
        if (t < NUM_BONDS+NUM_PAIRS+NUM_CORE_PAIRS) {
            // Bonds, and pairs with parameters of their own: of the networks' atoms, and inside the core.
            int isBond = (t < NUM_BONDS), isCore = (t >= NUM_BONDS+NUM_PAIRS);
            i += 3*t;
            p += (isBond ? 2*t : 2*NUM_BONDS+3*(t-NUM_BONDS));
            weight = (isCore ? (mixed) -1 : meanWeight(weights, i, 2));
            if (weight == 0)
                continue;
            mixed3 d = vectorBetween(posq, correction, i[0], i[1], i[2], boxA, boxB, boxC);
            mixed r = sqrt(inner(d, d)), slope = 0;
            if (isBond) {
                value = p[1]*(r-p[0])*(r-p[0])/2;
                slope = p[1]*(r-p[0]);
            }
            else if (isCore) {
                mixed2 wells = lennardJones(r, p[1], p[2]);
                mixed charge = COULOMB*p[0]/r;
                value = wells.x+charge;
                slope = wells.y-charge/r;
            }
            else if (!(r >= R_OFF)) {
                mixed2 pair = shortPair(r, p[0], p[1], p[2], 0);
                value = pair.x;
                slope = pair.y;
            }
            act(forces, i[0], i[1], scaled(d, -weight*slope/r));
            if (isCore)
                n = 0;
        }
        else if ((t -= NUM_BONDS+NUM_PAIRS+NUM_CORE_PAIRS) < NUM_BENDS) {
            n = 3;
            i += FIRST_BEND_ATOM+4*t;
            p += FIRST_BEND_NUMBER+2*t;
            weight = meanWeight(weights, i, 3);
            if (weight == 0)
                continue;
            mixed3 u = vectorBetween(posq, correction, i[1], i[0], i[3], boxA, boxB, boxC);
            mixed3 v = vectorBetween(posq, correction, i[1], i[2], i[3], boxA, boxB, boxC);
            mixed3 normal = outer(u, v);
            mixed squared = inner(normal, normal), sine = sqrt(squared < LINE ? LINE : squared), cosine = inner(u, v);
            mixed both = 1/(sine*sine+cosine*cosine), across = (squared < LINE ? (mixed) 0 : cosine*both/sine);
            mixed bend = atan2(sine, cosine)-p[0], slope = -weight*p[1]*bend;
            value = p[1]*bend*bend/2;
            act(forces, i[1], i[0], added(scaled(outer(v, normal), slope*across), scaled(v, -slope*sine*both)));
            act(forces, i[1], i[2], added(scaled(outer(normal, u), slope*across), scaled(u, -slope*sine*both)));
        }
        else if ((t -= NUM_BENDS) < NUM_TORSIONS+NUM_RBS) {
            n = 4;
            i += FIRST_TORSION_ATOM+5*t;
            p += FIRST_TORSION_NUMBER+(t < NUM_TORSIONS ? 3*t : 3*NUM_TORSIONS+6*(t-NUM_TORSIONS));
            weight = meanWeight(weights, i, 4);
            if (weight == 0)
                continue;
            Dihedral phi = dihedralOf(posq, correction, i, i[4], boxA, boxB, boxC);
            mixed slope = 0;
            if (t < NUM_TORSIONS) {
                mixed phase = p[0]*phi.value-p[1];
                value = p[2]*(1+cos(phase));
                slope = -p[2]*p[0]*sin(phase);
            }
            else {
                // The cosine of phi - pi.
                mixed x = -cos(phi.value);
                value = p[5];
                for (int m = 4; m >= 0; m--) {
                    slope = slope*x+value;
                    value = value*x+p[m];
                }
                slope *= sin(phi.value);
            }
            twist(forces, i, phi, -weight*slope);
        }
        else {
            t -= NUM_TORSIONS+NUM_RBS;
            n = 8;
            i += FIRST_CMAP_ATOM+9*t;
            p += FIRST_CMAP_NUMBER+8*t;
            weight = 0;
            for (int k = 0; k < 8; k++)
                weight += p[k]*weights[i[k]];
            if (weight == 0)
                continue;
            const int size = cmapPlace[2*t+1];
            const mixed turn = NUMBER(6.283185307179586476925);
            Dihedral phi[2];
            int patch[2];
            mixed x[2];
            for (int k = 0; k < 2; k++) {
                phi[k] = dihedralOf(posq, correction, i+4*k, i[8], boxA, boxB, boxC);
                mixed knots = (phi[k].value < 0 ? phi[k].value+turn : phi[k].value)*size/turn;
                // Bounds also keep an index out of what is no number.
                patch[k] = (knots >= size-1 ? size-1 : (knots > 0 ? (int) knots : 0));
                x[k] = knots-patch[k];
            }
            GLOBAL const mixed* RESTRICT c = cmapPatches+16*(cmapPlace[2*t]+patch[0]*size+patch[1]);
            mixed slopes[2];
            slopes[0] = slopes[1] = 0;
            for (int m = 3; m >= 0; m--) {
                GLOBAL const mixed* RESTRICT row = c+4*m;
                slopes[0] = slopes[0]*x[0]+value;
                value = value*x[0]+row[0]+x[1]*(row[1]+x[1]*(row[2]+x[1]*row[3]));
                slopes[1] = slopes[1]*x[0]+row[1]+x[1]*(2*row[2]+x[1]*3*row[3]);
            }
            for (int k = 0; k < 2; k++)
                twist(forces, i+4*k, phi[k], -weight*slopes[k]*size/turn);
        }
        for (int k = 0; k < n; k++)
            give(byLambda, moleculeOf, i[k], (n == 8 ? p[k]*value : value/n));
        total -= weight*value;
    }
    if (includeEnergy)
        energyBuffer[GLOBAL_ID] += total;
}

)KERNEL";
