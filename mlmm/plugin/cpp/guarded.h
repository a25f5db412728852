// How functions of the C interface end: no exception may cross into ctypes.
#pragma once

#include <exception>
#include <new>
#include <string>

#include "ani_force.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace mlmm {

// The message of the last function that failed, of each thread.
inline std::string& last_error() {
    static thread_local std::string message;
    return message;
}

// 0, or -1 with the message in mlmm_plugin_error().
template <class F>
int guarded(F f) {
    try {
        f();
        return 0;
    } catch (const std::bad_alloc&) {
        last_error() = no_memory().what();
    } catch (const std::exception& error) {
        last_error() = error.what();
    } catch (...) {
        last_error() = "an unknown error";
    }
    return -1;
}

}  // namespace mlmm
