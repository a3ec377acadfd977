/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Throttling is the kernel's own (memory.high). These programs see its failures and stop the call: over the freeze
 * line, with the throttle budget used up, or to make room for others while all calls together hold too much. Reached
 * over memory.high only, so below it they cost nothing.
 */
#ifndef AGENTRM_ENFORCE_BPF_H
#define AGENTRM_ENFORCE_BPF_H

#define NS_PER_MS 1000000ULL

/* Pages; the kernel never reclaims for less at a time (include/linux/swap.h), and looks at everything before it gives up. */
#define SWAP_CLUSTER_MAX 32

/*
 * Pages that the kernel charges at once, for the faults to come (MEMCG_CHARGE_BATCH). Reclaim gives back those that are
 * left: a call at the pool's line is under it after each.
 */
#define CHARGE_BATCH 64

/* For stop_reason(), where nothing is known of reclaim. */
#define RECLAIM_UNKNOWN (~0ULL)

/* memory.high never sleeps for 10 ms or less, nor for more than 2 s (mm/memcontrol.c). */
static __always_inline bool is_throttle_sleep(long jiffies, const struct agentrm_config *cfg)
{
	return jiffies > (long)cfg->hz / 100 && jiffies <= 2 * (long)cfg->hz;
}

/* @more: pages that it had a moment ago. */
static __always_inline bool over_own_high(struct mem_cgroup *memcg, unsigned long more)
{
	return memcg &&
	       (unsigned long)BPF_CORE_READ(memcg, memory.usage.counter) + more > BPF_CORE_READ(memcg, memory.high);
}

/* Whether the cgroup of the task or one above it is over its memory.high. */
static __always_inline bool over_high(struct task_struct *task)
{
	struct mem_cgroup *memcg = memcg_of_task(task);

	for (int i = 0; i < 16 && memcg; i++) {
		struct cgroup_subsys_state *parent;

		if (over_own_high(memcg, 0))
			return true;
		parent = BPF_CORE_READ(memcg, css.parent);
		memcg = parent ? (void *)parent - bpf_core_field_offset(struct mem_cgroup, css) : NULL;
	}
	return false;
}

static __always_inline bool daemon_alive(void)
{
	__u32 zero = 0;
	__u64 *beat = bpf_map_lookup_elem(&heartbeat, &zero);

	/* Signed: the beat may come from another CPU a moment "later" than the clock here. */
	return beat && (__s64)(bpf_ktime_get_ns() - *beat) < (__s64)AGENTRM_HEARTBEAT_STALE_NS;
}

/*
 * A debugger would take the signal for its own, and the shell that controls a job would see it stop: those wait for
 * cgroup.freeze, which nobody sees.
 */
static __always_inline bool may_signal(struct task_struct *task)
{
	__u32 type = bpf_core_enum_value(enum pid_type, PIDTYPE_PGID);
	struct signal_struct *own = BPF_CORE_READ(task, signal);
	struct signal_struct *parent = BPF_CORE_READ(task, group_leader, real_parent, signal);
	__u32 offset = bpf_core_field_offset(struct signal_struct, pids) + type * sizeof(struct pid *);
	struct pid *own_group = NULL, *parent_group = NULL;

	/* A debugger that follows one thread sees the whole process stop. */
	if (BPF_CORE_READ(task, ptrace) || BPF_CORE_READ(task, group_leader, ptrace))
		return false;
	if (BPF_CORE_READ(task, flags) & PF_EXITING)
		return false;
	bpf_probe_read_kernel(&own_group, sizeof(own_group), (void *)own + offset);
	bpf_probe_read_kernel(&parent_group, sizeof(parent_group), (void *)parent + offset);
	return own_group == parent_group;
}

static __always_inline void record_stop(__u64 call, __u32 tgid, bool by_bpf)
{
	struct agentrm_stop_key key = { .cgroup_id = call, .tgid = tgid };
	struct agentrm_stop stop = { .time_ns = bpf_ktime_get_ns(), .by_bpf = by_bpf };
	struct agentrm_stop *known = bpf_map_lookup_elem(&stops, &key);

	if (known) {
		/* The arrival of our own signal does not make it somebody else's. */
		known->time_ns = stop.time_ns;
		if (by_bpf)
			known->by_bpf = 1;
	} else if (bpf_map_update_elem(&stops, &key, &stop, BPF_ANY)) {
		count(stops_unrecorded);
	}
}

/* What was used up before is forgiven with the next cycle, and in time. */
static __always_inline bool window_is_over(const struct agentrm_stats *st, const struct agentrm_policy *policy,
					   __u64 now)
{
	return st->window_cycle != policy->cycle || now - st->window_start_ns > policy->window_ms * NS_PER_MS;
}

static __always_inline __u32 over_budget(struct agentrm_stats *st, const struct agentrm_policy *policy)
{
	__u32 reason = AGENTRM_REASON_NONE;

	if (policy->budget_ms && st->window_throttled_ms >= policy->budget_ms)
		reason = AGENTRM_REASON_BUDGET_TIME;
	else if (policy->budget_events && st->window_events >= policy->budget_events)
		reason = AGENTRM_REASON_BUDGET_EVENTS;
	/* Asked last: with the hook of every charge this is on the way of each. */
	if (reason != AGENTRM_REASON_NONE && window_is_over(st, policy, bpf_ktime_get_ns()))
		reason = AGENTRM_REASON_NONE;
	return reason;
}

/* Tasks of the call race here; a reset that counts one sleep more or less does no harm. */
static __always_inline void use_budget(struct agentrm_stats *st, const struct agentrm_policy *policy, __u64 ms)
{
	__u64 now = bpf_ktime_get_ns();

	if (window_is_over(st, policy, now)) {
		st->window_start_ns = now;
		st->window_cycle = policy->cycle;
		st->window_throttled_ms = 0;
		st->window_events = 0;
	}
	__sync_fetch_and_add(&st->window_throttled_ms, ms);
	__sync_fetch_and_add(&st->window_events, 1);
}

/* All calls together: the root's memory.high is the wire that they trip, and each has a line of its own beyond it. */
static __always_inline struct mem_cgroup *pool_of(struct cgroup *cgroup, const struct agentrm_config *cfg)
{
	return memcg_of(ancestor_at(cgroup, cfg->root_level));
}

/*
 * Held back for others: reclaim and throttle count neither as the call's own nor against its budget.
 * @reclaimed: pages; without these the one for which they were reclaimed may be below its line again.
 */
static __always_inline bool held_for_pool(struct cgroup *cgroup, const struct agentrm_config *cfg,
					  unsigned long reclaimed)
{
	/* Reclaim has given back what was charged ahead, too. */
	unsigned long more = reclaimed ? reclaimed + CHARGE_BATCH : 0;

	return over_own_high(pool_of(cgroup, cfg), more) && !over_own_high(memcg_of(cgroup), more);
}

/*
 * Why a call that charges in vain is to be stopped. At the hook that every charge passes nothing is known of reclaim,
 * which may be making room from page cache: there the pool is left to user space.
 */
static __always_inline __u32 stop_reason(struct cgroup *cgroup, __u64 usage, struct agentrm_stats *st,
					 const struct agentrm_policy *policy, const struct agentrm_config *cfg,
					 __u64 reclaimed)
{
	__u32 reason = usage > policy->freeze_line_bytes ? AGENTRM_REASON_LINE : over_budget(st, policy);
	__u64 back;

	if (reason != AGENTRM_REASON_NONE || reclaimed == RECLAIM_UNKNOWN || !policy->pool_line_bytes)
		return reason;
	/* What reclaim took in vain comes back. */
	back = (reclaimed + CHARGE_BATCH) * cfg->page_size;
	if (usage_bytes(pool_of(cgroup, cfg), cfg) + back > policy->pool_line_bytes)
		reason = AGENTRM_REASON_POOL;
	return reason;
}

/*
 * The current task is charging and reclaim has failed it, with so many pages: stop it if it is time to.
 * @ahead: bytes that it may charge before it comes to a stop.
 */
static __always_inline void stop_if_due(struct task_struct *task, struct cgroup *cgroup, __u64 call,
					struct agentrm_stats *st, const struct agentrm_policy *policy,
					const struct agentrm_config *cfg, __u64 reclaimed, __u64 ahead)
{
	__u32 mark = policy->cycle + 1, before = st->stopped_cycle, reason = AGENTRM_REASON_NONE;
	__u64 usage = usage_bytes(memcg_of(cgroup), cfg);
	bool signalled = false;

	if (!(policy->flags & AGENTRM_ENFORCE) || !daemon_alive())
		return;
	if (before != mark) {
		reason = stop_reason(cgroup, usage + ahead, st, policy, cfg, reclaimed);
		if (reason == AGENTRM_REASON_NONE)
			return;
	}
	if (may_signal(task)) {
		signalled = bpf_send_signal(SIGSTOP) == 0;
		/*
		 * After the signal, which takes effect only when the task leaves the kernel. Recorded before it, a SIGCONT
		 * that came between the two would take the record away and leave the SIGSTOP: the task would freeze with
		 * it pending, and stop for good when it is thawed.
		 */
		if (signalled)
			record_stop(call, BPF_CORE_READ(task, tgid), true);
		else
			count(send_signal_errors);
	}
	__sync_fetch_and_add(&st->stops, 1);
	/* The others of this cycle are stopped too, but one event is enough. */
	if (before == mark || __sync_val_compare_and_swap(&st->stopped_cycle, before, mark) != before)
		return;
	st->usage_at_stop_bytes = usage;
	if (!st->first_stop_ns)
		st->first_stop_ns = bpf_ktime_get_ns();
	send_event(AGENTRM_EVENT_STOP, call, task, usage, reason, signalled);
}

/*
 * Whether reclaim got nothing that lasts. What it takes last is the text of the programs that run, which they read again at
 * once: with that alone a call went on for seconds, by a page now and then, where it should have been stopped.
 */
static __always_inline bool reclaim_failed(struct agentrm_stats *st, unsigned long reclaimed)
{
	__u64 refaults = st->refaults, again = refaults - st->refaults_at_reclaim;

	st->refaults_at_reclaim = refaults;
	return reclaimed < again + SWAP_CLUSTER_MAX;
}

/* Bytes that the current task, over its memory.high after all that reclaim could do, may charge in a write. */
static __always_inline __u64 write_ahead(struct task_struct *task, struct cgroup *cgroup)
{
	return over_own_high(memcg_of(cgroup), 0) ? tmpfs_write_bytes(task) : 0;
}

/* reclaim_high() has returned in the current task's context. */
static __always_inline int after_reclaim(unsigned long reclaimed)
{
	const struct agentrm_config *cfg = get_config();
	struct task_struct *task = bpf_get_current_task_btf();
	struct agentrm_policy *policy;
	struct agentrm_stats *st;
	struct cgroup *cgroup;
	bool failed, for_pool, sleepless;
	__u64 call, ahead;

	if (!cfg)
		return 0;
	cgroup = call_cgroup_of(task, cfg);
	call = cgroup_id(cgroup);
	st = stats_of(call);
	if (!st)
		return 0;
	for_pool = held_for_pool(cgroup, cfg, reclaimed);
	if (!for_pool)
		__sync_fetch_and_add(&st->high_events, 1);
	failed = reclaim_failed(st, reclaimed);
	ahead = write_ahead(task, cgroup);
	if (!failed && !ahead)
		return 0;
	if (failed && !for_pool)
		__sync_fetch_and_add(&st->failed_reclaims, 1);
	/*
	 * The sleep has a hook of its own, but not always comes: the pool's wire follows the usage closely, see
	 * kernel-notes/pool.md, and the kernel lets everybody go on for whom it has reclaimed something. A long write
	 * that starts before the first may go past the line.
	 */
	sleepless = for_pool || reclaimed || ahead;
	policy = bpf_map_lookup_elem(&policies, &call);
	if (!policy || !(sleepless || cfg->hooks & AGENTRM_HOOK_RECLAIM))
		return 0;
	/* Where no length is known the budget counts failed reclaims. */
	if (failed && !for_pool && (reclaimed || !(cfg->hooks & AGENTRM_HOOK_SLEEP)))
		use_budget(st, policy, 0);
	stop_if_due(task, cgroup, call, st, policy, cfg, failed ? reclaimed : RECLAIM_UNKNOWN, ahead);
	return 0;
}

/* The throttle sleep: reclaim has got nowhere, and the argument is the penalty. */
SEC("kprobe/schedule_timeout_killable")
int BPF_KPROBE(on_throttle_sleep, long timeout)
{
	const struct agentrm_config *cfg = get_config();
	struct task_struct *task = bpf_get_current_task_btf();
	struct agentrm_policy *policy;
	struct agentrm_stats *st;
	struct cgroup *cgroup;
	__u64 call, ms;

	if (!cfg || !cfg->hz)
		return 0;
	cgroup = call_cgroup_of(task, cfg);
	call = cgroup_id(cgroup);
	st = stats_of(call);
	/* Others sleep here too, NFS for one. */
	if (!st || !is_throttle_sleep(timeout, cfg) || !over_high(task))
		return 0;
	ms = (__u64)timeout * 1000 / cfg->hz;
	__sync_fetch_and_add(&st->throttled_ms, ms);
	policy = bpf_map_lookup_elem(&policies, &call);
	if (!policy)
		return 0;
	if (!held_for_pool(cgroup, cfg, 0))
		use_budget(st, policy, ms);
	stop_if_due(task, cgroup, call, st, policy, cfg, 0, write_ahead(task, cgroup));
	return 0;
}

SEC("fexit/reclaim_high")
int BPF_PROG(on_reclaimed, void *memcg, unsigned int nr_pages, unsigned int gfp_mask, unsigned long reclaimed)
{
	return after_reclaim(reclaimed);
}

/* The same without the trampoline, whose recursion guard skips preempted calls from 7.1 on. */
SEC("kretprobe/reclaim_high")
int BPF_KRETPROBE(on_reclaimed_probe, unsigned long reclaimed)
{
	return after_reclaim(reclaimed);
}

/*
 * Last resort: every charge comes here, and nothing is known of reclaim. Reclaim that works holds the usage at
 * memory.high, so that over the line it has failed already or is failing.
 */
SEC("fentry/try_charge_memcg")
int BPF_PROG(on_charge)
{
	const struct agentrm_config *cfg = get_config();
	struct task_struct *task = bpf_get_current_task_btf();
	struct agentrm_policy *policy;
	struct agentrm_stats *st;
	struct cgroup *cgroup;
	__u64 call;

	if (!cfg)
		return 0;
	cgroup = call_cgroup_of(task, cfg);
	call = cgroup_id(cgroup);
	st = stats_of(call);
	if (!st)
		return 0;
	policy = bpf_map_lookup_elem(&policies, &call);
	if (policy)
		stop_if_due(task, cgroup, call, st, policy, cfg, RECLAIM_UNKNOWN, 0);
	return 0;
}

#endif
