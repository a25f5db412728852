// Independent pieces of work on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <unistd.h>
#endif

namespace mlmm {

// A thread that sleeps between the calls for it.
class Worker {
   public:
    Worker() { std::thread(&Worker::serve, this).detach(); }

    // work must live until finish.
    void start(const std::function<void(int)>& work, int number) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            work_ = &work, number_ = number;
        }
        wake_.notify_one();
    }

    // Waits for the work, unless it was not even begun: then there is none left, and nobody waits for a late riser.
    void finish() {
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [&] { return !running_; });
        work_ = nullptr;
    }

   private:
    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        while (true) {
            wake_.wait(lock, [&] { return work_ != nullptr; });
            const std::function<void(int)>* work = work_;
            const int number = number_;
            work_ = nullptr, running_ = true;
            lock.unlock();
            (*work)(number);
            lock.lock();
            running_ = false;
            done_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    const std::function<void(int)>* work_ = nullptr;
    int number_ = 0;
    bool running_ = false;
};

// The threads of a process that have nothing to do. Never destroyed: threads of the host may still evaluate while the
// process ends.
class Workers {
   public:
    // As many as asked for, or those that the system allows.
    std::vector<Worker*> borrow(int count) {
        std::lock_guard<std::mutex> lock(mutex_);
        std::vector<Worker*> result;
        for (; count > 0; --count) {
            if (!idle_.empty()) {
                result.push_back(idle_.back());
                idle_.pop_back();
                continue;
            }
            try {
                result.push_back(new Worker);
            } catch (const std::system_error&) {
                break;
            }
        }
        return result;
    }

    void give_back(const std::vector<Worker*>& workers) {
        std::lock_guard<std::mutex> lock(mutex_);
        idle_.insert(idle_.end(), workers.begin(), workers.end());
    }

    // A forked process has none of its parent's threads, and gets its own.
    static Workers& of_process() {
        static std::atomic<Workers*> current{nullptr};
        Workers* found = current;
        if (found && found->process_ == process()) return *found;
        auto* fresh = new Workers;
        if (current.compare_exchange_strong(found, fresh)) return *fresh;
        delete fresh;
        return *found;
    }

   private:
    static int64_t process() {
#ifdef _WIN32
        return 0;
#else
        return getpid();
#endif
    }

    const int64_t process_ = process();
    std::mutex mutex_;
    std::vector<Worker*> idle_;
};

// Runs independent pieces of work; what each of them gives does not depend on the number of threads.
inline void for_each_piece(int n, int threads, const std::function<void(int piece, int thread)>& work) {
    threads = std::min(threads, n);
    if (threads <= 1) {
        for (int k = 0; k < n; ++k) work(k, 0);
        return;
    }
    std::atomic<int> next{0};
    std::atomic<bool> failed{false};
    const std::function<void(int)> loop = [&](int thread) {
        try {
            for (int k = next++; k < n && !failed; k = next++) work(k, thread);
        } catch (...) {
            failed = true;
        }
    };
    Workers& workers = Workers::of_process();
    const std::vector<Worker*> others = workers.borrow(threads - 1);
    for (size_t t = 0; t < others.size(); ++t) others[t]->start(loop, static_cast<int>(t) + 1);
    loop(0);
    for (Worker* other : others) other->finish();
    workers.give_back(others);
    if (failed) throw std::bad_alloc();
}

}  // namespace mlmm
