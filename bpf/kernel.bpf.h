/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The few kernel structures that are read, with the few members that are needed. Offsets are relocated to the running
 * kernel when the object is loaded (CO-RE), so neither order nor size matter here.
 */
#ifndef AGENTRM_KERNEL_BPF_H
#define AGENTRM_KERNEL_BPF_H

#define SIGCONT 18
#define SIGSTOP 19
#define CLOCK_MONOTONIC 1
#define PF_EXITING 0x00000004

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	long counter;
} atomic_long_t;

struct kernfs_node {
	__u64 id;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup_subsys_state *subsys[64];
	struct cgroup *ancestors[64];
};

struct css_set {
	struct cgroup_subsys_state *subsys[64];
	struct cgroup *dfl_cgrp;
};

struct page_counter {
	atomic_long_t usage;
	unsigned long high;
};

struct mem_cgroup {
	struct cgroup_subsys_state css;
	struct page_counter memory;
};

struct pid;

struct signal_struct {
	struct pid *pids[4];
};

struct super_block {
	unsigned long s_magic;
};

struct inode {
	struct super_block *i_sb;
};

struct file {
	struct inode *f_inode;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

/* The kernel's own; <linux/ptrace.h> has the names that user space knows. */
struct pt_regs___kernel {
	unsigned long di;
	unsigned long dx;
	unsigned long orig_ax;
};

struct task_struct {
	int pid;
	int tgid;
	unsigned int flags;
	unsigned int ptrace;
	unsigned int in_lru_fault : 1;
	char comm[16];
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct css_set *cgroups;
	struct files_struct *files;
	struct signal_struct *signal;
};

struct oom_control {
	struct task_struct *chosen;
};

/* Pages in one piece, 2 to the power of its order. From 6.6 on that is the low byte of `_flags_1`, before a member. */
struct folio {
	unsigned long _flags_1;
};

struct folio___6_1 {
	unsigned char _folio_order;
};

struct bpf_iter__cgroup {
	struct cgroup *cgroup;
};

#pragma clang attribute pop

/* Enumerators differ between kernels and configurations: read with bpf_core_enum_value(). */
enum cgroup_subsys_id {
	memory_cgrp_id = 0,
};

enum pageflags {
	PG_head = 6,
};

enum pid_type {
	PIDTYPE_PGID = 2,
};

#endif
