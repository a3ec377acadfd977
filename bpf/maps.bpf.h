/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Everything that is pinned. Preallocated, so that nothing is allocated in the paths that charge memory. */
#ifndef AGENTRM_MAPS_BPF_H
#define AGENTRM_MAPS_BPF_H

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct agentrm_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, AGENTRM_MAX_CALLS);
	__type(key, __u64);
	__type(value, struct agentrm_policy);
} policies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, AGENTRM_MAX_CALLS);
	__type(key, __u64);
	__type(value, struct agentrm_stats);
} stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, AGENTRM_MAX_STOPS);
	__type(key, struct agentrm_stop_key);
	__type(value, struct agentrm_stop);
} stops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, AGENTRM_EVENTS_BYTES);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct agentrm_counters);
} counters SEC(".maps");

/* CLOCK_MONOTONIC of the daemon's last beat, stored through a mapping. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} heartbeat SEC(".maps");

/* Newest usage of each call, read through a mapping. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, AGENTRM_SLOTS);
	__type(key, __u32);
	__type(value, struct agentrm_slot);
} slots SEC(".maps");

/* What the sampler walks: cgroup id -> where the usage is and where it goes. */
struct sampled {
	__u64 memcg;
	__u32 slot;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, AGENTRM_MAX_CALLS);
	__type(key, __u64);
	__type(value, struct sampled);
} sampled SEC(".maps");

struct ticker {
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ticker);
} ticker SEC(".maps");

#endif
