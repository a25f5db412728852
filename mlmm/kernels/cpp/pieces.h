// Independent pieces of work on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <new>
#include <thread>
#include <vector>

namespace mlmm {

// Runs independent pieces of work; what each of them gives does not depend on the number of threads.
inline void for_each_piece(int n, int threads, const std::function<void(int piece, int thread)>& work) {
    threads = std::min(threads, n);
    if (threads <= 1) {
        for (int k = 0; k < n; ++k) work(k, 0);
        return;
    }
    std::atomic<int> next{0};
    std::atomic<bool> failed{false};
    const auto loop = [&](int thread) {
        try {
            for (int k = next++; k < n && !failed; k = next++) work(k, thread);
        } catch (...) {
            failed = true;
        }
    };
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(loop, t);
    loop(0);
    for (auto& other : others) other.join();
    if (failed) throw std::bad_alloc();
}

}  // namespace mlmm
