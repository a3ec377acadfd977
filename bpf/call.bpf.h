/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From a task or a cgroup to the call that it belongs to, and the things said about a call. */
#ifndef AGENTRM_CALL_BPF_H
#define AGENTRM_CALL_BPF_H

static __always_inline const struct agentrm_config *get_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

static __always_inline struct agentrm_counters *get_counters(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

#define count(member)                                                                  \
	do {                                                                           \
		struct agentrm_counters *_counters = get_counters();                   \
		if (_counters)                                                         \
			__sync_fetch_and_add(&_counters->member, 1);                   \
	} while (0)

/*
 * A cgroup's ancestor, itself included, or NULL if it is not that deep. Read as memory: the verifier knows no variable
 * index into an array behind a BTF pointer. Levels beyond 31 are nobody's configuration.
 */
static __always_inline struct cgroup *ancestor_at(struct cgroup *cgroup, __u32 level)
{
	struct cgroup *ancestor = NULL;

	if (!cgroup || (__s32)level > BPF_CORE_READ(cgroup, level))
		return NULL;
	bpf_probe_read_kernel(&ancestor, sizeof(ancestor),
			      (void *)cgroup + bpf_core_field_offset(struct cgroup, ancestors) +
				      (level & 31) * sizeof(ancestor));
	return ancestor;
}

static __always_inline __u64 cgroup_id(struct cgroup *cgroup)
{
	return cgroup ? BPF_CORE_READ(cgroup, kn, id) : 0;
}

/* The call's cgroup that a task is in, at whatever depth below it; NULL if it is not deep enough to be in one. */
static __always_inline struct cgroup *call_cgroup_of(struct task_struct *task, const struct agentrm_config *cfg)
{
	return ancestor_at(BPF_CORE_READ(task, cgroups, dfl_cgrp), cfg->call_level);
}

static __always_inline __u64 call_of(struct task_struct *task, const struct agentrm_config *cfg)
{
	return cgroup_id(call_cgroup_of(task, cfg));
}

/* Statistics exist exactly for the calls that have a policy: this is also the test for being managed. */
static __always_inline struct agentrm_stats *stats_of(__u64 call)
{
	return call ? bpf_map_lookup_elem(&stats, &call) : NULL;
}

/* The memory controller's part in an array of all controllers' parts; NULL where the controller is off. */
static __always_inline struct mem_cgroup *memcg_in(void *subsys)
{
	struct cgroup_subsys_state *css = NULL;

	bpf_probe_read_kernel(&css, sizeof(css),
			      subsys + bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id) * sizeof(css));
	return css ? (void *)css - bpf_core_field_offset(struct mem_cgroup, css) : NULL;
}

static __always_inline struct mem_cgroup *memcg_of(struct cgroup *cgroup)
{
	return cgroup ? memcg_in((void *)cgroup + bpf_core_field_offset(struct cgroup, subsys)) : NULL;
}

/* Where a task's memory is charged: its own cgroup, or the next one above with the controller on. */
static __always_inline struct mem_cgroup *memcg_of_task(struct task_struct *task)
{
	return memcg_in((void *)BPF_CORE_READ(task, cgroups) + bpf_core_field_offset(struct css_set, subsys));
}

static __always_inline __u64 usage_bytes(struct mem_cgroup *memcg, const struct agentrm_config *cfg)
{
	return memcg ? (__u64)BPF_CORE_READ(memcg, memory.usage.counter) * cfg->page_size : 0;
}

/* A function of its own, which puts the event into the object's BTF: the layout test looks there. */
static __noinline int name_process(struct agentrm_event *event, struct task_struct *task)
{
	event->pid = task ? BPF_CORE_READ(task, tgid) : 0;
	if (!task || bpf_probe_read_kernel_str(event->comm, sizeof(event->comm), task->comm) < 0)
		event->comm[0] = '\0';
	return 0;
}

static __always_inline void send_event(__u32 kind, __u64 call, struct task_struct *task, __u64 usage, __u32 reason,
				       bool signalled)
{
	struct agentrm_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		count(events_dropped);
		return;
	}
	event->cgroup_id = call;
	event->time_ns = bpf_ktime_get_ns();
	event->usage_bytes = usage;
	event->kind = kind;
	event->reason = reason;
	event->signalled = signalled;
	name_process(event, task);
	bpf_ringbuf_submit(event, 0);
}

#endif
