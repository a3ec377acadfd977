// SPDX-License-Identifier: Apache-2.0
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/un.h>

#include "text.h"

/* Between two tries of a connection whose backlog is full: short against the shortest wait, 50 ms. */
#define RETRY_NS (2 * NS_PER_MS)

/* Room for a flood of descriptors; what does not fit is closed by the kernel. */
#define FDS_MAX 8

/*
 * If the caller closed stdin, stdout or stderr, a new descriptor takes its
 * number, and a line for stderr could go to the daemon. Fills the holes; like
 * all descriptors here these do not survive exec, so the command sees them
 * closed as they were.
 */
static int above_stdio(int fd)
{
	long high;

	if (fd < 0 || fd > 2)
		return fd;
	high = SYS3(fcntl, fd, F_DUPFD_CLOEXEC, 3);
	SYS1(close, fd);
	while ((fd = (int)SYS4(openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0)) >= 0 && fd <= 2)
		;
	if (fd >= 0)
		SYS1(close, fd);
	return (int)high;
}

int channel_open(struct channel *c, const char *path, int64_t deadline_ns)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	socklen_t peer_size = sizeof(c->peer);
	size_t n = len(path);
	long ret;

	c->sock = c->fd = -1;
	c->from = c->to = 0;
	if (n >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, n);

	ret = above_stdio((int)SYS3(socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (ret < 0)
		return (int)ret;
	c->sock = (int)ret;
	for (;;) {
		ret = SYS3(connect, c->sock, &addr, sizeof(addr));
		if ((ret != -EAGAIN && ret != -EINTR) || now_ns() >= deadline_ns)
			break;
		sleep_ns(RETRY_NS);
	}
	if (ret == 0)
		ret = SYS5(getsockopt, c->sock, SOL_SOCKET, SO_PEERCRED, &c->peer, &peer_size);
	if (ret < 0)
		channel_close(c);
	return (int)ret;
}

void channel_close(struct channel *c)
{
	if (c->sock >= 0)
		SYS1(close, c->sock);
	if (c->fd >= 0)
		SYS1(close, c->fd);
	c->sock = c->fd = -1;
}

static bool wait_for(int sock, short events, int64_t deadline_ns)
{
	struct pollfd p = { .fd = sock, .events = events };
	struct timespec left;
	long ret;

	do {
		left = time_left(deadline_ns);
		ret = SYS5(ppoll, &p, 1, &left, NULL, 0);
	} while (ret == -EINTR);
	return ret > 0;
}

bool channel_send(struct channel *c, const char *bytes, size_t n, int64_t deadline_ns)
{
	while (n) {
		long ret = sys6(__NR_sendto, c->sock, (long)bytes, (long)n, MSG_NOSIGNAL, 0, 0);

		if (ret >= 0) {
			bytes += ret;
			n -= (size_t)ret;
		} else if (ret != -EINTR && (ret != -EAGAIN || !wait_for(c->sock, POLLOUT, deadline_ns))) {
			return false;
		}
	}
	return true;
}

/* Keeps the first descriptor of the connection that nobody has taken and closes all others. */
static void keep_fds(struct channel *c, const struct msghdr *msg)
{
	const struct cmsghdr *h = msg->msg_control;
	const int *fds = (const int *)(const void *)CMSG_DATA(h);

	/* Only SCM_RIGHTS can come: no other ancillary data is asked for. */
	if (msg->msg_controllen < CMSG_LEN(sizeof(int)) || h->cmsg_level != SOL_SOCKET ||
	    h->cmsg_type != SCM_RIGHTS)
		return;
	for (size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
		if (c->fd < 0)
			c->fd = above_stdio(fds[i]);
		else
			SYS1(close, fds[i]);
	}
}

/* Reads what is there; -EAGAIN if nothing is, 0 at the end. */
static long fill(struct channel *c)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control;
	struct iovec room = { .iov_base = c->in + c->to, .iov_len = sizeof(c->in) - c->to };
	struct msghdr msg = {
		.msg_iov = &room,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	long ret;

	do
		ret = SYS3(recvmsg, c->sock, &msg, MSG_CMSG_CLOEXEC);
	while (ret == -EINTR);
	if (ret > 0) {
		keep_fds(c, &msg);
		c->to += (size_t)ret;
	}
	return ret;
}

/* The next complete line of what was read, or NULL. */
static char *buffered_line(struct channel *c)
{
	for (size_t i = c->from; i < c->to; i++) {
		if (c->in[i] == '\n') {
			char *line = c->in + c->from;

			c->in[i] = '\0';
			c->from = i + 1;
			return line;
		}
	}
	memmove(c->in, c->in + c->from, c->to - c->from);
	c->to -= c->from;
	c->from = 0;
	return NULL;
}

enum channel_state channel_line(struct channel *c, char **line, int64_t deadline_ns)
{
	while (!(*line = buffered_line(c))) {
		long ret;

		if (c->to == sizeof(c->in))
			return CHANNEL_JUNK;
		ret = fill(c);
		if (ret == -EAGAIN) {
			if (!wait_for(c->sock, POLLIN, deadline_ns))
				return CHANNEL_TIMEOUT;
		} else if (ret <= 0) {
			return CHANNEL_EOF;
		}
	}
	for (const char *p = *line; p < c->in + c->from - 1; p++)
		if (!*p)
			return CHANNEL_JUNK;
	return CHANNEL_LINE;
}

int channel_take_fd(struct channel *c)
{
	int fd = c->fd;

	c->fd = -1;
	return fd;
}
