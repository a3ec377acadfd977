/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_RUN_H
#define AGENTRM_RUN_H

#include <sys/resource.h>

#include "channel.h"
#include "command.h"
#include "signals.h"

/* Longer than any call id or token that the daemon makes. */
#define ID_BYTES 80

/* A daemon that does not answer at once is missed less than a slow call is. */
#define FIRST_ANSWER_NS (50 * NS_PER_MS)
/* One that is alive but busy, or that systemd is starting now, is worth more. */
#define BUSY_ANSWER_NS (2000 * NS_PER_MS)

/* All that is known of the one call that this process is for. */
struct run {
	struct command cmd;
	struct caps caps;
	struct signals signals;
	struct channel daemon;
	const char *socket;
	uint32_t uid;
	char call[ID_BYTES]; /* empty: the daemon has no such call */
	char token[ID_BYTES];
	int notes; /* printed so far */
	int64_t reconnect_ns, backoff_ns;
};

/* What the daemon wants done with the command. */
enum answer {
	ANSWER_CLONE, /* fork into the cgroup whose descriptor came along */
	ANSWER_MOVE, /* fork; the child has itself placed with `token` */
	ANSWER_NONE, /* run it as if there were no daemon */
	ANSWER_REFUSE,
	ANSWER_LATE, /* none in time: run it now, be placed when the answer comes */
	ANSWER_BROKEN, /* the connection broke, or what came is not the protocol */
};

/* Connects to a daemon of root or of `uid`; any other is refused with -EPERM, unasked. */
int daemon_connect(struct channel *c, const char *socket, uint32_t uid, int64_t deadline_ns);

/* Is an answer still to be expected on a connection that has had none within FIRST_ANSWER_NS? */
bool daemon_expected(const struct run *run);

/*
 * Waits for the answer to a request that was sent at start_ns; once the daemon
 * has said `ack`, for as long as that says, but no longer than most_ms (-1: no
 * such bound). Prints its notes. With ANSWER_REFUSE *code is the exit status to
 * end with.
 */
enum answer answer_await(struct run *run, int64_t start_ns, int64_t most_ms, int64_t *code);

/* Reads the rest of a `go` line into `run`. */
enum answer answer_parse_go(struct run *run, char *rest);

/* Prints what the daemon wants the agent to read. */
void note_print(struct run *run, const char *text);

/* Tells the daemon that the command was started without its help, so that it moves it by itself. */
void send_late(struct run *run);

/*
 * Stays with the running command to its end: passes signals on, prints notes,
 * looks for the daemon again when it is lost.
 */
void supervise(struct run *run, int child, int *status, struct rusage *usage);

/* Tells the daemon of the end, or one that comes in its place at once, and gives it a moment for its report. */
void report_end(struct run *run, int status, const struct rusage *usage);

#endif
