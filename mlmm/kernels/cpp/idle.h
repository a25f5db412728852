// Work space that waits for the next evaluation.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace mlmm {

// Work space is kept: fresh memory would cost as much as the pairs. Never destroyed: threads of the host may
// still evaluate while the process ends.
template <class Space>
struct Idle {
    std::mutex mutex;
    std::vector<std::unique_ptr<Space>> spaces;

    std::unique_ptr<Space> borrow() {
        std::lock_guard<std::mutex> lock(mutex);
        if (spaces.empty()) return std::make_unique<Space>();
        auto result = std::move(spaces.back());
        spaces.pop_back();
        return result;
    }

    void give_back(std::unique_ptr<Space> space) {
        std::lock_guard<std::mutex> lock(mutex);
        if (spaces.size() < 4) spaces.push_back(std::move(space));
    }
};

template <class Space>
Idle<Space>& idle() {
    static Idle<Space>* const instance = new Idle<Space>;
    return *instance;
}

}  // namespace mlmm
