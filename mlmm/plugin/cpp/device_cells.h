// Device code of a cell list, in OpenMM's common dialect: atoms in the order of small cells, so that the cost of a
// search grows with the atoms and not with their square. It stands behind that of the neighbours' arithmetic.
//
// Cells are those of the periodic box, in fractions of its edges; without one, of a grid that repeats itself, so that
// positions have no limit and atoms of other copies are only looked at in vain.
#pragma once

static const char* const kDeviceCells = R"KERNEL(

typedef struct {
    int x, y, z;
} Cell;

/**
 * Cells along each edge. Neighbours within the cutoff are in the same cell or in one beside it.
 */
DEVICE Cell cellsAlong(Edges edges) {
#ifdef USE_PERIODIC
    // Distances between the planes of one fraction.
    real slantY = edges.c.y*edges.c.w;
    real slantX = edges.b.x*edges.b.w, slantZ = (edges.b.x*edges.b.w*edges.c.y-edges.c.x)*edges.c.w;
    real heightX = edges.a.x/SQRT(1+slantX*slantX+slantZ*slantZ), heightY = edges.b.y/SQRT(1+slantY*slantY);
    Cell along;
    along.x = atMost((int) floor(heightX/CELL_EDGE), CELLS_ALONG);
    along.y = atMost((int) floor(heightY/CELL_EDGE), CELLS_ALONG);
    along.z = atMost((int) floor(edges.c.z/CELL_EDGE), CELLS_ALONG);
    along.x = (along.x > 0 ? along.x : 1); along.y = (along.y > 0 ? along.y : 1); along.z = (along.z > 0 ? along.z : 1);
#else
    Cell along;
    along.x = along.y = along.z = CELLS_ALONG;
#endif
    return along;
}

DEVICE int placeAlong(mixed fraction, int cells) {
    int place = (int) ((fraction-floor(fraction))*cells);
    return (place < 0 ? 0 : atMost(place, cells-1));
}

/**
 * Of a position that is no number: some cell.
 */
DEVICE Cell cellOf(mixed x, mixed y, mixed z, Edges edges, Cell along) {
#ifdef USE_PERIODIC
    mixed c = z*edges.c.w, b = (y-c*edges.c.y)*edges.b.w, a = (x-b*edges.b.x-c*edges.c.x)*edges.a.w;
#else
    mixed a = x/(CELL_EDGE*along.x), b = y/(CELL_EDGE*along.y), c = z/(CELL_EDGE*along.z);
#endif
    Cell cell;
    cell.x = placeAlong(a, along.x); cell.y = placeAlong(b, along.y); cell.z = placeAlong(c, along.z);
    return cell;
}

DEVICE int beside(int place, int step, int cells) {
    place += step;
    return (place < 0 ? place+cells : (place >= cells ? place-cells : place));
}

/**
 * One group. cellStart: where each cell begins, and where the last one ends; cellNext: room for as many numbers.
 * cellPlaces and cellAtoms: positions (nm) and numbers of the atoms, cell after cell, in any order within one.
 * cellsBroken: whether a position is no number.
 */
KERNEL AT_MOST(CELL_GROUP) void sortIntoCells(mixed4 boxA, mixed4 boxB, mixed4 boxC,
        GLOBAL const real4* RESTRICT posq, GLOBAL const real4* RESTRICT correction,
        GLOBAL const int* RESTRICT particles, GLOBAL const int* RESTRICT capParticles,
        GLOBAL const mixed* RESTRICT capDistances,
        GLOBAL int* cellStart, GLOBAL int* cellNext, GLOBAL int* cellOfAtom, GLOBAL real4* RESTRICT cellPlaces,
        GLOBAL int* RESTRICT cellAtoms, GLOBAL int* RESTRICT cellsBroken) {
    LOCAL int counts[2*CELL_GROUP];
    LOCAL int broken[1];
    const Edges edges = edgesOf(boxA, boxB, boxC);
    const Cell along = cellsAlong(edges);
    const int cells = along.x*along.y*along.z;
    if (LOCAL_ID == 0)
        broken[0] = 0;
    for (int c = LOCAL_ID; c < cells; c += CELL_GROUP)
        cellNext[c] = 0;
    SYNC_THREADS;
    for (int j = LOCAL_ID; j < NUM_ATOMS; j += CELL_GROUP) {
        mixed3 p = atomPosition(posq, correction, particles, capParticles, capDistances, j, boxA, boxB, boxC);
        int place = 0;
        if (!isNoNumber((real) (p.x+p.y+p.z)) && fabs(p.x)+fabs(p.y)+fabs(p.z) < (mixed) 1e6f) {
            Cell cell = cellOf(p.x, p.y, p.z, edges, along);
            place = (cell.z*along.y+cell.y)*along.x+cell.x;
        }
        else
            broken[0] = 1;
        cellOfAtom[j] = place;
        ATOMIC_ADD(&cellNext[place], 1);
    }
    SYNC_THREADS;
    const int share = (cells+CELL_GROUP-1)/CELL_GROUP;
    const int first = atMost(LOCAL_ID*share, cells), last = atMost(first+share, cells);
    int sum = 0, total;
    for (int c = first; c < last; c++)
        sum += cellNext[c];
    sum = sumBefore(sum, counts, CELL_GROUP, &total);
    for (int c = first; c < last; c++) {
        int size = cellNext[c];
        cellStart[c] = cellNext[c] = sum;
        sum += size;
    }
    if (LOCAL_ID == 0) {
        cellStart[cells] = total;
        cellsBroken[0] = broken[0];
    }
    SYNC_THREADS;
    for (int j = LOCAL_ID; j < NUM_ATOMS; j += CELL_GROUP) {
        mixed3 p = atomPosition(posq, correction, particles, capParticles, capDistances, j, boxA, boxB, boxC);
        int place = ATOMIC_ADD(&cellNext[cellOfAtom[j]], 1);
        cellPlaces[place] = make_real4((real) p.x, (real) p.y, (real) p.z, 0);
        cellAtoms[place] = j;
    }
}

)KERNEL";
