// SPDX-License-Identifier: Apache-2.0
#include "command.h"

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>

#include "say.h"
#include "text.h"

/* Deep enough for say() and its line in the child that shares this memory. */
#define STACK_BYTES 32768

int command_exec(const struct command *cmd)
{
	char digits[12] = { 0 };
	struct text t = TEXT_IN(digits);
	long ret;

	ret = SYS3(execve, cmd->file, cmd->argv, cmd->envp);
	text_number(&t, -ret);
	say("agentrm: cannot execute ", cmd->file, ": errno ", digits);
	return ret == -ENOENT ? 127 : 126;
}

__attribute__((noreturn)) static void child(const struct command *cmd)
{
	caps_drop(cmd->caps);
	/* Charges for huge pages are not throttled by memory.high (kernel-notes/memory-high.md). */
	if (!cmd->huge_pages)
		SYS5(prctl, PR_SET_THP_DISABLE, 1, 0, 0, 0);
	if (cmd->child_action.handler == SIG_IGN)
		sys_sigaction(SIGCHLD, &cmd->child_action, NULL);
	sys_sigmask(SIG_SETMASK, &cmd->mask, NULL);
	if (cmd->before)
		cmd->before(cmd->arg);
	sys_exit(command_exec(cmd));
}

/* clone3 into memory that both share: the child must leave the parent's stack alone, so it gets its own. */
static long clone_shared(struct clone_args *args, const struct command *cmd)
{
#if defined(__x86_64__)
	long ret;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "mov %[cmd], %%rdi\n\t"
			 "call *%[child]\n"
			 "1:"
			 : "=a"(ret)
			 : "a"(__NR_clone3), "D"(args), "S"(sizeof(*args)), [cmd] "r"(cmd), [child] "r"(child)
			 : "rcx", "r11", "memory");
	return ret;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = __NR_clone3;
	register long x0 __asm__("x0") = (long)args;
	register long x1 __asm__("x1") = sizeof(*args);

	__asm__ volatile("svc 0\n\t"
			 "cbnz x0, 1f\n\t"
			 "mov x0, %[cmd]\n\t"
			 "blr %[child]\n"
			 "1:"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), [cmd] "r"(cmd), [child] "r"(child)
			 : "x30", "memory");
	return x0;
#endif
}

/*
 * As vfork does it: no page is copied, and none is charged to the call's cgroup
 * before the command itself runs. Not possible where the child has to talk to
 * the daemon first, for the parent sleeps until the child has become the command.
 */
static long start_shared(const struct command *cmd, int cgroup)
{
	static char stack[STACK_BYTES] __attribute__((aligned(16)));
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_VFORK,
		.exit_signal = SIGCHLD,
		.stack = (uintptr_t)stack,
		.stack_size = sizeof(stack),
	};

	if (cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup;
	}
	return clone_shared(&args, cmd);
}

long command_start(const struct command *cmd, int cgroup)
{
	long pid = -ENOSYS;

	if (!cmd->before) {
		if (cgroup >= 0)
			caps_raise(cmd->caps);
		pid = start_shared(cmd, cgroup);
	}
	caps_drop(cmd->caps);
	if (pid >= 0 || cgroup >= 0)
		return pid;
	/* Also where a seccomp filter knows no clone3. */
	pid = sys6(__NR_clone, SIGCHLD, 0, 0, 0, 0, 0);
	if (pid == 0)
		child(cmd);
	return pid;
}
