/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One command as a managed tool call: asks the daemon, starts the command in its
 * cgroup, stays outside as its parent, and ends as it ended. Whatever goes wrong
 * on the way, the command runs, unless the administrator chose otherwise.
 */
#ifndef AGENTRM_CALL_H
#define AGENTRM_CALL_H

/* To run nothing and say why: as env(1) and timeout(1) report a failure of their own. */
#define EXIT_REFUSED 125

/*
 * Takes on the caller's own ids, as bash does when a set-uid program starts it,
 * and so that set-uid on this file is of no use. To be called before anything else.
 */
void call_be_caller(char **envp);

/*
 * Runs the program `shell`, an absolute path, with `argv`. Does not return if it
 * ran; else returns the exit status to end with.
 */
int call_run(const char *shell, char **argv, char **envp);

#endif
