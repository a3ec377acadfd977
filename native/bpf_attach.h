// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bpf/libbpf.h>

#include <cstdint>

#include "fd.h"

namespace agentrm {

// Attaches a loaded program to what its section names and returns the link. Not libbpf's own attach: its links disable
// a kprobe when they are destroyed, pinned or not, and these must outlive the process. Throws Failure.
Fd attachProgram(const struct bpf_program *program);

// Runs a loaded iter/cgroup program once over a cgroup and its descendants. Throws Failure.
void runOverCgroups(const struct bpf_program *program, uint64_t rootCgroupId);

}  // namespace agentrm
