/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Layouts shared by the BPF programs and the addon through pinned maps, which outlive both: within one ABI version
 * nothing here changes. Fixed-width fields in natural alignment, no holes, so that every compiler agrees.
 */
#ifndef AGENTRM_ABI_H
#define AGENTRM_ABI_H

#include <linux/types.h>

#define AGENTRM_ABI_VERSION 3

/* 500 calls at once are a goal; beyond these numbers setting a policy fails, and nothing is lost. */
#define AGENTRM_MAX_CALLS 4096
/* One entry a stopped process; a process that finds no room is stopped all the same. */
#define AGENTRM_MAX_STOPS 16384
/* Power of two. Four slots a call keep probing short. */
#define AGENTRM_SLOTS 16384
#define AGENTRM_SLOT_PROBES 32
/* About 3,000 events. */
#define AGENTRM_EVENTS_BYTES (256 * 1024)
#define AGENTRM_COMM_LENGTH 16

/* A daemon whose main loop has not come round for this long is not there to thaw what is stopped. */
#define AGENTRM_HEARTBEAT_STALE_NS 2000000000ULL
/*
 * The sampler looks again before a call can have come from where it is to its freeze line, once a millisecond at the
 * shortest. 8 bytes/ns is more than two cores can fill with zeroes; a power of two, as BPF divides slowly.
 */
#define AGENTRM_SAMPLE_NS 1000000ULL
#define AGENTRM_SAMPLE_MAX_NS 16000000ULL
#define AGENTRM_FILL_BYTES_PER_NS_LOG2 3

/* policy.flags */
#define AGENTRM_ENFORCE 1U

/* config.hooks: what the enforcing programs do when they are attached together. */
#define AGENTRM_HOOK_SLEEP 1U	/* schedule_timeout_killable */
#define AGENTRM_HOOK_RECLAIM 2U /* reclaim_high */
#define AGENTRM_HOOK_CHARGE 4U	/* try_charge_memcg */

struct agentrm_config {
	__u64 root_cgroup_id;
	__u32 root_level;
	__u32 call_level;
	__u32 hz;
	__u32 page_size;
	__u32 hooks;
	__u32 sampling;
};

/* Written by user space, by cgroup id of the call. */
struct agentrm_policy {
	__u64 freeze_line_bytes;
	/* Usage of the root, all calls together, over which this call is to make room for others. 0: never. */
	__u64 pool_line_bytes;
	__u32 budget_ms;
	__u32 budget_events;
	__u32 window_ms;
	__u32 flags;
	__u32 cycle;
	__u32 unused;
};

/* Made empty by user space together with the policy, then written by the programs only. */
struct agentrm_stats {
	__u64 high_events;
	__u64 failed_reclaims;
	/* Pages of text and mapped files that reclaim had taken and that were needed again; and as of the last reclaim. */
	__u64 refaults;
	__u64 refaults_at_reclaim;
	__u64 throttled_ms;
	__u64 stops;
	__u64 usage_at_stop_bytes;
	__u64 first_stop_ns;
	__u64 forks;
	__u64 execs;
	__u64 exits;
	__u64 oom_kills;
	/* Budget: what was used since window_start_ns, in cycle window_cycle. */
	__u64 window_start_ns;
	__u64 window_throttled_ms;
	__u64 window_events;
	__u32 window_cycle;
	/* policy.cycle + 1 of the last cycle that was ended by a stop; 0: none yet. */
	__u32 stopped_cycle;
};

struct agentrm_stop_key {
	__u64 cgroup_id;
	__u32 tgid;
	__u32 unused;
};

struct agentrm_stop {
	__u64 time_ns;
	__u32 by_bpf;
	__u32 unused;
};

enum agentrm_event_kind {
	AGENTRM_EVENT_STOP = 1,
	AGENTRM_EVENT_OOM = 2,
	AGENTRM_EVENT_EMPTIED = 3,
};

enum agentrm_reason {
	AGENTRM_REASON_NONE = 0,
	AGENTRM_REASON_LINE = 1,
	AGENTRM_REASON_BUDGET_TIME = 2,
	AGENTRM_REASON_BUDGET_EVENTS = 3,
	AGENTRM_REASON_POOL = 4,
};

struct agentrm_event {
	__u64 cgroup_id;
	__u64 time_ns;
	__u64 usage_bytes;
	__u32 kind;
	__u32 pid;
	__u32 reason;
	__u32 signalled;
	char comm[AGENTRM_COMM_LENGTH];
};

struct agentrm_counters {
	__u64 events_dropped;
	__u64 stops_unrecorded;
	__u64 send_signal_errors;
	__u64 sampler_errors;
};

/* Sampler: open addressing by cgroup id, at most AGENTRM_SLOT_PROBES places from agentrm_slot_of(id); id 0 is free. */
struct agentrm_slot {
	__u64 cgroup_id;
	__u64 usage_bytes;
	__u64 time_ns;
};

/* Fibonacci hashing: cgroup ids are small and consecutive. */
static inline __u32 agentrm_slot_of(__u64 cgroup_id, __u32 probe)
{
	return ((__u32)((cgroup_id * 0x9E3779B97F4A7C15ULL) >> 40) + probe) & (AGENTRM_SLOTS - 1);
}

#endif
