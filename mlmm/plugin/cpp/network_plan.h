// How the layers of the networks are shared out among the threads of a group: rows of a tile, blocks of outputs and
// shares of the inputs for each warp, as local memory has room for.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "packing.h"

namespace mlmm {

class NetworkPlan {
   public:
    // few: a region that leaves most of a large device idle; of a group: the most threads, and bytes of local memory.
    NetworkPlan(const std::vector<PackedLayer>& layers, bool few, int most_threads, int local_memory, int real_size);

    std::map<std::string, std::string> defines() const;

    int threads = 256, rows = 0;

   private:
    struct Share {
        int columns, shares;
    };
    Share best(int inputs, int outputs, int most_shares) const;
    bool fits(int most_shares, int room);

    const std::vector<PackedLayer>& layers;
    std::vector<Share> forward, backward;
    int part_rows = 0, steps = 1, parts = 0;
};

}  // namespace mlmm
