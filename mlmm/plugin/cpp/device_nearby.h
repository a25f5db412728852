// Device code of the scheme `supermolecular`, in OpenMM's common dialect: which atoms have another energy without the
// region. It stands behind that of the forces.
#pragma once

static const char* const kDeviceNearby = R"KERNEL(

/**
 * +1 for candidates among all atoms, -1 for those in the structure without the region; 0 beyond reach of the region
 * and of the caps, where both energies are the same. Those of the region and the caps themselves are never 0.
 */
KERNEL void chooseCandidates(mixed4 boxA, mixed4 boxB, mixed4 boxC, GLOBAL const real4* RESTRICT posq,
        GLOBAL const real4* RESTRICT correction, GLOBAL const int* RESTRICT particles,
        GLOBAL const int* RESTRICT capParticles, GLOBAL const mixed* RESTRICT capDistances,
        GLOBAL const int* RESTRICT candidates, GLOBAL const int* RESTRICT candidateSides,
        GLOBAL const int* RESTRICT atomSides, GLOBAL const int* RESTRICT sources,
        GLOBAL real* RESTRICT candidateWeights) {
    for (int k = GLOBAL_ID; k < NUM_CANDIDATES; k += GLOBAL_SIZE) {
        int atom = candidates[k];
        // What stands on one side only is a source.
        int near = (atomSides[atom] != 3);
        mixed3 here = atomPosition(posq, correction, particles, capParticles, capDistances, atom, boxA, boxB, boxC);
        for (int s = 0; s < NUM_SOURCES && !near; s++) {
            mixed3 there = atomPosition(posq, correction, particles, capParticles, capDistances, sources[s], boxA,
                boxB, boxC);
            mixed3 d = separation(here, there, boxA, boxB, boxC);
            real x = (real) (LENGTH*d.x), y = (real) (LENGTH*d.y), z = (real) (LENGTH*d.z);
            // Nor is anything far that is no number.
            near = !(x*x+y*y+z*z >= RADIAL_CUTOFF*RADIAL_CUTOFF);
        }
        candidateWeights[k] = (near ? (candidateSides[k] == 1 ? (real) 1 : (real) -1) : (real) 0);
    }
}

)KERNEL";
