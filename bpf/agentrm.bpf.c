// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The kernel half of AgentRM, one object for every kernel from 6.1 on. */
/* Arguments stand at the place where the kernel passes them, used or not. */
#pragma clang diagnostic ignored "-Wunused-parameter"

#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "abi.h"
#include "kernel.bpf.h"

#include "maps.bpf.h"

#include "call.bpf.h"
#include "write.bpf.h"

#include "enforce.bpf.h"
#include "observe.bpf.h"
#include "sampler.bpf.h"

/* The verifier's word for GPL-compatible; needed for kernel structures, timers and signals. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
