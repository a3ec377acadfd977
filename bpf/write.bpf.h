/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the system call of a task may still charge after it has been told to stop. A write to a file in memory runs to its
 * end whatever is pending: mm/filemap.c, generic_perform_write(), heeds only what kills.
 */
#ifndef AGENTRM_WRITE_BPF_H
#define AGENTRM_WRITE_BPF_H

#define TMPFS_MAGIC 0x01021994

/* x86-64's. A page fault is not taken for one: its error code, which stands in the same place, has bit 2 set. */
#define NR_WRITE 1
#define NR_PWRITE64 18

/* No call writes more (MAX_RW_COUNT), whatever it is asked for. */
#define MAX_WRITE_BYTES 0x7ffff000UL

/*
 * Bytes that the current task writes at once to a file on tmpfs, or has just written: then it is likely to go on so. Else 0.
 * Files on disks do not count: reclaim can take what is written.
 */
static __always_inline __u64 tmpfs_write_bytes(struct task_struct *task)
{
	struct pt_regs___kernel *regs = (void *)bpf_task_pt_regs(task);
	unsigned long nr = BPF_CORE_READ(regs, orig_ax), fd, bytes;
	struct file *file = NULL, **files;
	struct fdtable *table;

	if (nr != NR_WRITE && nr != NR_PWRITE64)
		return 0;
	fd = BPF_CORE_READ(regs, di);
	table = BPF_CORE_READ(task, files, fdt);
	if (fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	files = BPF_CORE_READ(table, fd);
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	if (BPF_CORE_READ(file, f_inode, i_sb, s_magic) != TMPFS_MAGIC)
		return 0;
	bytes = BPF_CORE_READ(regs, dx);
	return bytes < MAX_WRITE_BYTES ? bytes : MAX_WRITE_BYTES;
}

#endif
