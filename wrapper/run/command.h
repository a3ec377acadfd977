/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_COMMAND_H
#define AGENTRM_COMMAND_H

#include "caps.h"
#include "sys.h"

/* The command and the state that it must inherit as if nothing had stood in between. */
struct command {
	const char *file; /* absolute path of the shell */
	char **argv;
	char **envp;
	const struct caps *caps;
	sigset64 mask; /* the caller's */
	struct ksigaction child_action; /* the caller's for SIGCHLD */
	bool huge_pages; /* leave them on */
	/* Runs in the child before the command, with the caller's signal mask; may be NULL. */
	void (*before)(void *arg);
	void *arg;
};

/*
 * Becomes the command. Returns only if that fails, with the exit status of a
 * shell that could not execute a file (126, 127), after a line on stderr.
 */
int command_exec(const struct command *cmd);

/*
 * Forks the command into the cgroup whose directory `cgroup` is, or where this
 * process is if that is -1. Returns the pid or -errno.
 */
long command_start(const struct command *cmd, int cgroup);

#endif
