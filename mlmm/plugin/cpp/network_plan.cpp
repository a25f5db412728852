#include "network_plan.h"

#include <algorithm>

namespace mlmm {

namespace {

// Blocks of 32 outputs that a warp takes at most: its sums, and weights that are on their way, stay in registers.
constexpr int kMostColumns = 5, kMostRowsOfPart = 8;

int slots(int shares) { return (shares + 1) / 2; }

}  // namespace

NetworkPlan::NetworkPlan(const std::vector<PackedLayer>& layers, bool few, int most_threads, int local_memory,
                         int real_size)
    : layers(layers) {
    if (few && most_threads >= 512) threads = 512;
    // With few rows a warp has little to do until what it reads is there: it asks for more at a time.
    steps = few ? 2 : 1;
    for (rows = few ? 4 : 16; rows > 1; rows /= 2)
        for (const int most_shares : {16, 8, 4, 2})
            if (fits(most_shares, local_memory / real_size)) return;
    fits(1, 0);
}

// A warp waits for multiplications, and for inputs and weights that it reads: the fewest of them for all inputs.
NetworkPlan::Share NetworkPlan::best(int inputs, int outputs, int most_shares) const {
    const int blocks = outputs / 32, warps = threads / 32, row_parts = rows / part_rows;
    Share found{1, 1};
    double least = 0;
    for (int columns = 1; columns <= std::min(blocks, kMostColumns); ++columns) {
        if (blocks % columns != 0) continue;
        const int tasks = blocks / columns * row_parts;
        const int shares = std::max(1, std::min({warps / tasks, most_shares, inputs / 4}));
        const double rounds = (tasks * shares + warps - 1) / warps;
        const double cost = rounds / shares * (columns * part_rows + part_rows + 4 * columns);
        if (least == 0 || cost < least) least = cost, found = {columns, shares};
    }
    return found;
}

bool NetworkPlan::fits(int most_shares, int room) {
    part_rows = std::min(rows, kMostRowsOfPart);
    forward.clear(), backward.clear();
    int widths = 0;
    parts = 32 * rows;
    for (size_t k = 0; k < layers.size(); ++k) {
        const PackedLayer& layer = layers[k];
        widths += layer.outputs;
        forward.push_back(best(layer.inputs, layer.outputs, most_shares));
        backward.push_back(best(layer.outputs, layer.inputs, most_shares));
        parts = std::max(parts, slots(forward.back().shares) * layer.outputs * rows);
        // Gradients in the symmetry functions go straight to where they belong where nothing has to be added.
        if (k > 0 || backward.back().shares > 1)
            parts = std::max(parts, slots(backward.back().shares) * layer.inputs * rows);
    }
    return rows * (widths + 1) + parts <= room;
}

std::map<std::string, std::string> NetworkPlan::defines() const {
    const auto list = [](std::initializer_list<size_t> numbers) {
        std::string text;
        for (const size_t number : numbers) text += (text.empty() ? "" : ", ") + std::to_string(number);
        return "(" + text + ") ";
    };
    std::string there, back;
    size_t before = 0;
    int most = 1;
    for (size_t k = 0; k < layers.size(); ++k) {
        const PackedLayer& layer = layers[k];
        const size_t in = layer.inputs, out = layer.outputs;
        const size_t columns = forward[k].columns, shares = forward[k].shares;
        const size_t columns_back = backward[k].columns, shares_back = backward[k].shares;
        most = std::max({most, forward[k].columns, backward[k].columns});
        if (k == 0) {
            there = "FIRST_LAYER" + list({in, out, columns, shares, layer.weights, layer.biases});
            back = "FIRST_LAYER_BACK" + list({in, out, columns_back, shares_back, layer.transposed});
        } else {
            there += "FORWARD" + list({k, in, out, columns, shares, layer.weights, layer.biases, before});
            back = "BACKWARD" + list({k, in, out, columns_back, shares_back, layer.transposed, before - in}) + back;
        }
        before += out;
    }
    return {{"FORWARD_LAYERS", there},
            {"BACKWARD_LAYERS", back},
            {"ROWS", std::to_string(rows)},
            {"PART_ROWS", std::to_string(part_rows)},
            {"NETWORK_GROUP", std::to_string(threads)},
            {"MOST_COLUMNS", std::to_string(most)},
            {"STEPS", std::to_string(steps)},
            {"PARTS", std::to_string(parts)}};
}

}  // namespace mlmm
