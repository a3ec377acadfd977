// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <ctime>

namespace agentrm {

// CLOCK_MONOTONIC in nanoseconds: the clock of bpf_ktime_get_ns() and process.hrtime.
inline uint64_t monotonicNs() {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace agentrm
