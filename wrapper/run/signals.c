// SPDX-License-Identifier: Apache-2.0
#include "signals.h"

#include <errno.h>
#include <linux/signalfd.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* Sent to the thread by its own faults; blocking them would kill without a word. */
#define FAULTS \
	(SIGBIT(SIGSEGV) | SIGBIT(SIGBUS) | SIGBIT(SIGFPE) | SIGBIT(SIGILL) | SIGBIT(SIGTRAP) | \
	 SIGBIT(SIGSYS) | SIGBIT(SIGABRT))

/* What a terminal sends to its foreground group, and the kernel to an orphaned one. */
#define OF_THE_GROUP \
	(SIGBIT(SIGINT) | SIGBIT(SIGQUIT) | SIGBIT(SIGTSTP) | SIGBIT(SIGTTIN) | SIGBIT(SIGTTOU) | \
	 SIGBIT(SIGWINCH) | SIGBIT(SIGHUP) | SIGBIT(SIGCONT))

int signals_take(struct signals *s)
{
	struct ksigaction plain = { .handler = SIG_DFL };
	sigset64 all = ~FAULTS;
	long fd = SYS4(signalfd4, -1, &all, sizeof(all), SFD_CLOEXEC | SFD_NONBLOCK);

	if (fd < 0)
		return (int)fd;
	s->fd = (int)fd;
	sys_sigmask(SIG_BLOCK, &all, &s->mask);
	/* A caller may have SIGCHLD ignored: then there would be no status to wait for. */
	sys_sigaction(SIGCHLD, &plain, &s->child_action);
	return 0;
}

void signals_give_back(const struct signals *s)
{
	SYS1(close, s->fd);
	sys_sigaction(SIGCHLD, &s->child_action, NULL);
	sys_sigmask(SIG_SETMASK, &s->mask, NULL);
}

static void pass_continue(int child)
{
	siginfo_t info = { 0 };

	/* If it was continued already, the signal went to the group: a handler should not run twice. */
	SYS5(waitid, P_PID, child, &info, WCONTINUED | WNOHANG, NULL);
	if (!info.si_pid)
		SYS2(kill, child, SIGCONT);
}

static bool is_for_child(const struct signalfd_siginfo *info)
{
	if (info->ssi_signo == SIGCHLD)
		return false;
	if (info->ssi_code != SI_KERNEL || !(SIGBIT(info->ssi_signo) & OF_THE_GROUP))
		return true;
	/* When a terminal hangs up, the session's leader alone is told. */
	return info->ssi_signo == SIGHUP && SYS1(getsid, 0) == SYS0(getpid);
}

void signals_pass(const struct signals *s, int child)
{
	struct signalfd_siginfo info;

	while (SYS3(read, s->fd, &info, sizeof(info)) == sizeof(info)) {
		if (!is_for_child(&info))
			continue;
		if (info.ssi_signo == SIGCONT)
			pass_continue(child);
		else
			SYS2(kill, child, info.ssi_signo);
	}
}

static bool is_job_control(int sig)
{
	return sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
}

/* Does to this process what `sig` does by default. */
static void raise_default(int sig)
{
	struct ksigaction plain = { .handler = SIG_DFL };
	sigset64 set = SIGBIT(sig);

	sys_sigaction(sig, &plain, NULL);
	SYS2(kill, SYS0(getpid), sig);
	sys_sigmask(SIG_UNBLOCK, &set, NULL);
	sys_sigmask(SIG_BLOCK, &set, NULL);
}

bool signals_reap(int child, int *status, struct rusage *usage)
{
	long pid;

	/* All children: a caller may have left some of its own to this process when it executed it. */
	while ((pid = SYS4(wait4, -1, status, WNOHANG | WUNTRACED, usage)) > 0 || pid == -EINTR) {
		if (pid != child)
			continue;
		if (!WIFSTOPPED(*status))
			return true;
		if (is_job_control(WSTOPSIG(*status)))
			raise_default(WSTOPSIG(*status));
	}
	return false;
}

void end_like(int status)
{
	if (WIFSIGNALED(status)) {
		/* The core is the command's; this process must not write another over it. */
		SYS5(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
		raise_default(WTERMSIG(status));
		/* Still here: the first process of a pid namespace survives. */
		sys_exit(128 + WTERMSIG(status));
	}
	sys_exit(WEXITSTATUS(status));
}
