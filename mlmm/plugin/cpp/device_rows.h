// Device code of rows that change with the positions, in OpenMM's common dialect: which atoms have networks in this
// step is decided on the device, and counted there.
//
// kDeviceRowCounts stands before all other device code, makeRows behind that of the neighbours.
#pragma once

static const char* const kDeviceRowCounts = R"KERNEL(

#ifdef MOVING_ROWS
// Rows and tiles of this step; NUM_CENTRES is the number of rows that there is room for.
#define ROW_COUNT rowCounts[0]
#define TILE_COUNT rowCounts[1]
#define ROW_COUNTS_ARGUMENT , GLOBAL const int* RESTRICT rowCounts
#else
#define ROW_COUNT NUM_CENTRES
#define TILE_COUNT NUM_TILES
#define ROW_COUNTS_ARGUMENT
#endif

#ifdef TWO_SIDES
// Each row belongs to one of two structures, and sees the atoms of that one.
#define SIDES_ARGUMENT , GLOBAL const int* RESTRICT atomSides, GLOBAL const int* RESTRICT rowSides
#define SIDES_GIVEN , atomSides, rowSides
#define IS_NEIGHBOUR(row, own, atom) (atom != own && (atomSides[atom]&rowSides[row]) != 0)
#else
#define SIDES_ARGUMENT
#define SIDES_GIVEN
#define IS_NEIGHBOUR(row, own, atom) (atom != own)
#endif

)KERNEL";

static const char* const kDeviceRows = R"KERNEL(

/**
 * Tiles of up to ROWS rows of one element, which has the rows from before[s] to before[s+1]; their number.
 */
DEVICE int cutTiles(LOCAL_ARG const int* before, GLOBAL const int* RESTRICT slots, GLOBAL int* RESTRICT tiles) {
    int tile = 0;
    for (int s = 0; s < NUM_SPECIES; s++) {
        int rows = before[s+1]-before[s], ofElement = (rows+ROWS-1)/ROWS;
        for (int t = LOCAL_ID; t < ofElement; t += ROW_GROUP) {
            tiles[3*(tile+t)] = slots[s];
            tiles[3*(tile+t)+1] = before[s]+t*ROWS;
            tiles[3*(tile+t)+2] = (rows-t*ROWS < ROWS ? rows-t*ROWS : ROWS);
        }
        tile += ofElement;
    }
    return tile;
}

/**
 * Candidates whose weight is not zero become rows, in their own order, which is that of the elements; one group.
 * Each thread counts in its share of the candidates, then writes behind the threads before it.
 */
KERNEL AT_MOST(ROW_GROUP) void makeRows(GLOBAL const int* RESTRICT candidates,
        GLOBAL const int* RESTRICT candidateSides, GLOBAL const int* RESTRICT candidateStart,
        GLOBAL const int* RESTRICT slots,
        GLOBAL const real* RESTRICT candidateWeights, GLOBAL int* RESTRICT centres, GLOBAL int* RESTRICT rowSides,
        GLOBAL real* RESTRICT rowWeights, GLOBAL int* RESTRICT rowOf, GLOBAL int* RESTRICT tiles,
        GLOBAL int* RESTRICT rowCounts, GLOBAL int* RESTRICT status) {
    LOCAL int sums[2*ROW_GROUP];
    LOCAL int before[NUM_SPECIES+1];
    const int share = (NUM_CANDIDATES+ROW_GROUP-1)/ROW_GROUP;
    const int first = (LOCAL_ID*share < NUM_CANDIDATES ? LOCAL_ID*share : NUM_CANDIDATES);
    const int last = (first+share < NUM_CANDIDATES ? first+share : NUM_CANDIDATES);
    int count = 0;
    for (int k = first; k < last; k++)
        count += (candidateWeights[k] != 0);
    int total, next = sumBefore(count, sums, ROW_GROUP, &total), species = 0;
    const int fits = (total <= NUM_CENTRES);
    // Elements without candidates of their own at the end begin where the last ends.
    for (int s = LOCAL_ID; s <= NUM_SPECIES; s += ROW_GROUP)
        if (candidateStart[s] == NUM_CANDIDATES)
            before[s] = total;
    while (species < NUM_SPECIES && candidateStart[species] < first)
        species++;
    for (int k = first; k < last; k++) {
        while (species < NUM_SPECIES && candidateStart[species] == k)
            before[species++] = next;
        real weight = candidateWeights[k];
        int row = -1;
        if (weight != 0 && fits) {
            row = next++;
            centres[row] = candidates[k];
            rowWeights[row] = weight*(ENERGY/MEMBERS);
#ifdef TWO_SIDES
            rowSides[row] = candidateSides[k];
#endif
        }
        rowOf[k] = row;
    }
    SYNC_THREADS;
    int cut = 0;
    if (fits)
        cut = cutTiles(before, slots, tiles);
    if (LOCAL_ID == 0) {
        rowCounts[0] = (fits ? total : 0);
        rowCounts[1] = cut;
        if (!fits)
            status[1] = 1;
    }
}

)KERNEL";
