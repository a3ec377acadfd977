/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_SIGNALS_H
#define AGENTRM_SIGNALS_H

#include <stdbool.h>
#include <sys/resource.h>

#include "sys.h"

/* The caller's signal state, which the command gets back. */
struct signals {
	int fd; /* a signalfd: readable when there is something for signals_pass */
	sigset64 mask;
	struct ksigaction child_action;
};

/*
 * From here on signals come through s->fd. Returns 0, or -errno with nothing
 * changed.
 */
int signals_take(struct signals *s);
/* Undoes it. */
void signals_give_back(const struct signals *s);

/*
 * Passes on to `child` what was sent to this process alone. What the terminal
 * sends goes to the whole process group, so the child has it already. A signal
 * that somebody sends to the group with kill(2) cannot be told from a lone one
 * and reaches the child twice.
 */
void signals_pass(const struct signals *s, int child);

/*
 * Has `child` ended? Then true, with what wait4 says of it. If it was stopped by
 * job control, this process stops with it by the same signal, as the shell that
 * waits for it expects, and returns once continued. SIGSTOP is no job control:
 * the kernel program that freezes calls uses it, and nobody outside is to see that.
 */
bool signals_reap(int child, int *status, struct rusage *usage);

/* Ends this process as `status` (of wait4) says that the command ended. */
__attribute__((noreturn)) void end_like(int status);

#endif
