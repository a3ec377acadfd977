/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Copies memory.current of every call into a mapped array, once a millisecond while one is near its freeze line: 20 to
 * 100 ns a call, where a read of the file costs user space 460. Runs only while there are calls.
 */
#ifndef AGENTRM_SAMPLER_BPF_H
#define AGENTRM_SAMPLER_BPF_H

static long sample(void *map, __u64 *call, struct sampled *entry, __u64 *wait_ns)
{
	const struct agentrm_config *cfg = get_config();
	struct agentrm_slot *slot = bpf_map_lookup_elem(&slots, &entry->slot);
	struct agentrm_policy *policy;
	__u64 usage, room, reach_ns;

	if (!cfg || !slot || slot->cgroup_id != *call)
		return 0;
	/* Read as memory that may be gone: rmdir drops the entry, but the timer may be past the lookup. */
	usage = usage_bytes((struct mem_cgroup *)entry->memcg, cfg);
	slot->usage_bytes = usage;
	slot->time_ns = bpf_ktime_get_ns();
	/* A cgroup without a policy waits for its call. */
	policy = bpf_map_lookup_elem(&policies, call);
	if (!policy)
		return 0;
	room = policy->freeze_line_bytes > usage ? policy->freeze_line_bytes - usage : 0;
	reach_ns = room >> AGENTRM_FILL_BYTES_PER_NS_LOG2;
	if (reach_ns < *wait_ns)
		*wait_ns = reach_ns;
	return 0;
}

static int tick(void *map, __u32 *key, struct ticker *value)
{
	__u64 wait_ns = AGENTRM_SAMPLE_MAX_NS;

	if (bpf_for_each_map_elem(&sampled, sample, &wait_ns, 0) > 0)
		bpf_timer_start(&value->timer, wait_ns > AGENTRM_SAMPLE_NS ? wait_ns : AGENTRM_SAMPLE_NS, 0);
	return 0;
}

static __always_inline void start_ticker(void)
{
	__u32 zero = 0;
	struct ticker *value = bpf_map_lookup_elem(&ticker, &zero);

	if (!value)
		return;
	/* Fails if it exists already; the callback is set anew each time, so that it is this object's. */
	bpf_timer_init(&value->timer, &ticker, CLOCK_MONOTONIC);
	bpf_timer_set_callback(&value->timer, tick);
	/* From 6.18 on there is no timer on a CPU without cmpxchg16b: its memory is allocated by kmalloc_nolock(). */
	if (bpf_timer_start(&value->timer, AGENTRM_SAMPLE_NS, 0))
		count(sampler_errors);
}

static __always_inline bool take_slot(__u64 call, __u32 *index)
{
	for (__u32 probe = 0; probe < AGENTRM_SLOT_PROBES; probe++) {
		struct agentrm_slot *slot;
		__u64 owner;

		*index = agentrm_slot_of(call, probe);
		slot = bpf_map_lookup_elem(&slots, index);
		if (!slot)
			return false;
		owner = __sync_val_compare_and_swap(&slot->cgroup_id, 0, call);
		if (owner == 0 || owner == call)
			return true;
	}
	count(sampler_errors);
	return false;
}

static __always_inline void add_sampled(struct cgroup *cgroup, const struct agentrm_config *cfg)
{
	struct sampled entry = { .memcg = (__u64)memcg_of(cgroup) };
	__u64 call = cgroup->kn->id;

	if (!entry.memcg || cgroup->level != (__s32)cfg->call_level ||
	    cgroup_id(ancestor_at(cgroup, cfg->root_level)) != cfg->root_cgroup_id)
		return;
	if (!take_slot(call, &entry.slot))
		return;
	if (bpf_map_update_elem(&sampled, &call, &entry, BPF_ANY) == 0)
		start_ticker();
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(on_mkdir, struct cgroup *cgroup)
{
	const struct agentrm_config *cfg = get_config();

	if (cfg && cfg->sampling)
		add_sampled(cgroup, cfg);
	return 0;
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(on_rmdir, struct cgroup *cgroup)
{
	__u64 call = cgroup->kn->id;
	struct sampled *entry = bpf_map_lookup_elem(&sampled, &call);
	struct agentrm_slot *slot;
	__u32 index;

	/* Of a daemon that was killed when it had removed a call, and had not yet forgotten it. */
	bpf_map_delete_elem(&policies, &call);
	bpf_map_delete_elem(&stats, &call);
	if (!entry)
		return 0;
	index = entry->slot;
	bpf_map_delete_elem(&sampled, &call);
	slot = bpf_map_lookup_elem(&slots, &index);
	if (slot)
		__sync_val_compare_and_swap(&slot->cgroup_id, call, 0);
	return 0;
}

/* Calls that were there before: run once, over the root's descendants. */
SEC("iter/cgroup")
int on_existing(struct bpf_iter__cgroup *ctx)
{
	const struct agentrm_config *cfg = get_config();
	struct cgroup *cgroup = ctx->cgroup;

	if (cfg && cgroup)
		add_sampled(cgroup, cfg);
	return 0;
}

#endif
