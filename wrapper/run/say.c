// SPDX-License-Identifier: Apache-2.0
#include "say.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>

#include "clock.h"
#include "text.h"

/* A reader that is only slow gets this long to make room; a call must not hang on its own report. */
#define ROOM_NS (100 * NS_PER_MS)

/* PIPE_BUF: so that a pipe that poll calls writable takes the line whole without blocking. */
#define LINE_BYTES 4096

void say_parts(const char *const *parts)
{
	char line[LINE_BYTES];
	struct text t = { .at = line, .end = line + sizeof(line) - 1 };
	struct pollfd out = { .fd = 2, .events = POLLOUT };
	struct timespec room = { .tv_nsec = ROOM_NS };
	struct timespec none = { 0 };
	/* SIGPIPE from a reader that is gone, SIGTTOU from `stty tostop` in the background. */
	sigset64 noise = SIGBIT(SIGPIPE) | SIGBIT(SIGTTOU), pipe = SIGBIT(SIGPIPE), old;

	for (; *parts; parts++)
		for (const char *s = *parts; *s; s++)
			text_bytes(&t, (unsigned char)*s < 0x20 || *s == 0x7f ? "?" : s, 1);
	*t.at++ = '\n';

	if (SYS5(ppoll, &out, 1, &room, NULL, 0) != 1 || !(out.revents & POLLOUT))
		return;
	sys_sigmask(SIG_BLOCK, &noise, &old);
	if (SYS3(write, 2, line, t.at - line) == -EPIPE && !(old & pipe))
		SYS4(rt_sigtimedwait, &pipe, NULL, &none, sizeof(pipe));
	sys_sigmask(SIG_SETMASK, &old, NULL);
}
