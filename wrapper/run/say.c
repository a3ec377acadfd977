// SPDX-License-Identifier: Apache-2.0
#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include "clock.h"
#include "text.h"

/* A reader that is only slow gets this long to make room; a call must not hang on its own report. */
#define ROOM_NS (100 * NS_PER_MS)

/* PIPE_BUF: so that a pipe that poll calls writable takes the line whole without blocking. */
#define LINE_BYTES 4096

/*
 * Is stderr a file whose last line has no end yet? Agents that keep output in a
 * file read it as a whole: what is said must not become part of that line.
 */
static bool mid_line(void)
{
	char last = '\n';
	long fd;

	/* Opening a pipe for reading would be noticed at its other end. */
	if (SYS3(lseek, 2, 0, SEEK_CUR) < 0)
		return false;
	/* Anew, since stderr is seldom readable. */
	fd = SYS4(openat, AT_FDCWD, "/proc/self/fd/2", O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0)
		return false;
	if (SYS3(lseek, fd, -1, SEEK_END) >= 0)
		SYS3(read, fd, &last, 1);
	SYS1(close, fd);
	return last != '\n';
}

void say_parts(const char *const *parts)
{
	char line[LINE_BYTES];
	struct text t = { .at = line, .end = line + sizeof(line) - 1 };
	struct pollfd out = { .fd = 2, .events = POLLOUT };
	struct timespec room = { .tv_nsec = ROOM_NS };
	struct timespec none = { 0 };
	/* SIGPIPE from a reader that is gone, SIGTTOU from `stty tostop` in the background. */
	sigset64 noise = SIGBIT(SIGPIPE) | SIGBIT(SIGTTOU), pipe = SIGBIT(SIGPIPE), old;

	if (mid_line())
		text_put(&t, "\n");
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
