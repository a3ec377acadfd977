/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_REQUEST_H
#define AGENTRM_REQUEST_H

#include <stdbool.h>
#include <sys/resource.h>

#include "env.h"
#include "text.h"

/* The longest line that the daemon reads. */
#define REQUEST_BYTES 65536

/* Each of these writes one line of the protocol, newline included. */

/* `clone`: this process can fork into a cgroup that is not its own. */
void request_run(struct text *t, char **argv, const struct env *env, bool clone);
void request_place(struct text *t, const char *token);
void request_adopt(struct text *t, const char *call);
void request_late(struct text *t);
/* `status` as wait4 gave it. */
void request_end(struct text *t, int status, const struct rusage *usage);

#endif
