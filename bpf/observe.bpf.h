/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What happens to the processes of a call: stops, continuations, births and deaths, OOM kills, the last one's end. */
#ifndef AGENTRM_OBSERVE_BPF_H
#define AGENTRM_OBSERVE_BPF_H

/* A stop signal has been dequeued. Without a number the thread only joins a stop that is recorded already. */
SEC("fentry/do_signal_stop")
int BPF_PROG(on_signal_stop, int signal)
{
	const struct agentrm_config *cfg = get_config();
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 call;

	if (!cfg || !signal)
		return 0;
	call = call_of(task, cfg);
	if (stats_of(call))
		record_stop(call, task->tgid, false);
	return 0;
}

/* SIGCONT takes effect when it is sent, and removes a SIGSTOP that has not been dequeued yet. */
SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal, int signal, void *info, struct task_struct *task)
{
	const struct agentrm_config *cfg;
	struct agentrm_stop_key key = {};

	if (signal != SIGCONT)
		return 0;
	cfg = get_config();
	if (!cfg)
		return 0;
	key.cgroup_id = call_of(task, cfg);
	key.tgid = task->tgid;
	if (stats_of(key.cgroup_id))
		bpf_map_delete_elem(&stops, &key);
	return 0;
}

/* The number of pages; 1 where this kernel keeps it elsewhere. */
static __always_inline __u64 pages_of(struct folio *folio)
{
	struct folio___6_1 *old = (void *)folio;
	unsigned long flags = 0;

	/* The flags come first, in a type whose name has changed. */
	bpf_probe_read_kernel(&flags, sizeof(flags), folio);
	if (!(flags & 1UL << bpf_core_enum_value(enum pageflags, PG_head)))
		return 1;
	if (bpf_core_field_exists(old->_folio_order))
		return 1ULL << (BPF_CORE_READ(old, _folio_order) & 31);
	if (bpf_core_field_exists(folio->_flags_1))
		return 1ULL << (BPF_CORE_READ(folio, _flags_1) & 31);
	return 1;
}

/*
 * A page comes back that reclaim took. Of those only the ones count without which the program cannot go on: its text, and
 * files that it has mapped. Files that are read, from start to end as a rule, come back for good reason.
 */
SEC("fentry/workingset_refault")
int BPF_PROG(on_refault, struct folio *folio)
{
	const struct agentrm_config *cfg = get_config();
	struct task_struct *task = bpf_get_current_task_btf();
	struct agentrm_stats *st;

	if (!cfg || !bpf_core_field_exists(task->in_lru_fault) || !BPF_CORE_READ_BITFIELD(task, in_lru_fault))
		return 0;
	st = stats_of(call_of(task, cfg));
	if (st)
		__sync_fetch_and_add(&st->refaults, pages_of(folio));
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	const struct agentrm_config *cfg = get_config();
	struct agentrm_stats *st;

	/* A thread is no process. */
	if (!cfg || child->pid != child->tgid)
		return 0;
	/* The child's cgroup: with CLONE_INTO_CGROUP it is not the parent's. */
	st = stats_of(call_of(child, cfg));
	if (st)
		__sync_fetch_and_add(&st->forks, 1);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task)
{
	const struct agentrm_config *cfg = get_config();
	struct agentrm_stats *st = cfg ? stats_of(call_of(task, cfg)) : NULL;

	if (st)
		__sync_fetch_and_add(&st->execs, 1);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	const struct agentrm_config *cfg = get_config();
	struct agentrm_stop_key key = {};
	struct agentrm_stats *st;

	if (!cfg || task->pid != task->tgid)
		return 0;
	key.cgroup_id = call_of(task, cfg);
	key.tgid = task->tgid;
	st = stats_of(key.cgroup_id);
	if (!st)
		return 0;
	__sync_fetch_and_add(&st->exits, 1);
	/* The number may soon be another process, which must not be continued in this one's place. */
	bpf_map_delete_elem(&stops, &key);
	return 0;
}

/* The victim's own call, whichever cgroup's limit was hit. A kprobe, because fentry may skip calls (see above). */
SEC("kprobe/oom_kill_process")
int BPF_KPROBE(on_oom_kill, struct oom_control *oc)
{
	const struct agentrm_config *cfg = get_config();
	struct task_struct *victim = BPF_CORE_READ(oc, chosen);
	struct agentrm_stats *st;
	struct cgroup *cgroup;
	__u64 call;

	if (!cfg)
		return 0;
	cgroup = call_cgroup_of(victim, cfg);
	call = cgroup_id(cgroup);
	st = stats_of(call);
	if (!st)
		return 0;
	__sync_fetch_and_add(&st->oom_kills, 1);
	send_event(AGENTRM_EVENT_OOM, call, victim, usage_bytes(memcg_of(cgroup), cfg), AGENTRM_REASON_NONE, false);
	return 0;
}

SEC("tp_btf/cgroup_notify_populated")
int BPF_PROG(on_populated, struct cgroup *cgroup, const char *path, int populated)
{
	const struct agentrm_config *cfg = get_config();
	__u64 call;

	if (!cfg || populated || cgroup->level != (__s32)cfg->call_level)
		return 0;
	call = cgroup->kn->id;
	if (stats_of(call))
		send_event(AGENTRM_EVENT_EMPTIED, call, NULL, 0, AGENTRM_REASON_NONE, false);
	return 0;
}

#endif
