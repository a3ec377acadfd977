/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_ENV_H
#define AGENTRM_ENV_H

#include <stdbool.h>

#include "sys.h"

/*
 * What the environment says about a call. Absent and empty are the same: NULL.
 * None of it is trusted: it only chooses whom to ask and what to ask for.
 */
struct env {
	const char *socket;
	const char *intent;
	const char *session;
	const char *agent;
	const char *runtime_dir;
	int64_t admission_ms; /* -1: not set, or not a number */
	bool no_call; /* run it as if there were no daemon */
};

/*
 * Reads envp, and makes `_` in it name `shell`, as a shell that executes it
 * would: it holds the path of this program, which the command has no use for.
 * `underscore` (n bytes) is where that variable lives from then on.
 */
struct env env_read(char **envp, const char *shell, char *underscore, size_t n);

#endif
