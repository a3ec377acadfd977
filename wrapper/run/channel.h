/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_CHANNEL_H
#define AGENTRM_CHANNEL_H

#include <stdbool.h>
#include <sys/socket.h>

#include "clock.h"

/* The daemon's lines are a few dozen bytes; a longer one is not the daemon's. */
#define CHANNEL_LINE_BYTES 4096

/* A connection to the daemon: lines in, lines out, and the one descriptor that came with them. */
struct channel {
	int sock; /* -1: not connected */
	int fd; /* received and not yet taken, or -1 */
	struct ucred peer; /* who listened on the socket, from the kernel */
	size_t from, to; /* unread bytes of `in` */
	char in[CHANNEL_LINE_BYTES];
};

enum channel_state {
	CHANNEL_LINE,
	CHANNEL_TIMEOUT,
	CHANNEL_EOF, /* also if the connection broke */
	CHANNEL_JUNK, /* an overlong line, or one with a NUL */
};

/*
 * Connects to `path`. A full backlog is retried until `deadline_ns`. Returns 0,
 * or -errno with the channel not connected.
 */
int channel_open(struct channel *c, const char *path, int64_t deadline_ns);
void channel_close(struct channel *c);

/* Sends all n bytes before `deadline_ns`; false if that could not be done. */
bool channel_send(struct channel *c, const char *bytes, size_t n, int64_t deadline_ns);

/* Gets the next line, without its newline, in *line; it is valid until the next call. */
enum channel_state channel_line(struct channel *c, char **line, int64_t deadline_ns);

/* The descriptor that came with the lines so far, now the caller's; -1 if none did. */
int channel_take_fd(struct channel *c);

#endif
