// SPDX-License-Identifier: Apache-2.0
/*
 * Freezes a cgroup from user space, as what AgentRM's own way is compared with:
 *
 *   agentrm-poll CGROUP LINE_BYTES PERIOD_US
 *
 * reads memory.current every PERIOD_US and writes 1 to cgroup.freeze once it is over the line; prints the usage that
 * it saw then. It runs with real-time priority where it may, so that the load cannot keep it from the CPU: no
 * user-space poller can do better.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
	fprintf(stderr, "agentrm-poll: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int open_in(int dir, const char *name, int flags)
{
	int fd = openat(dir, name, flags | O_CLOEXEC);

	if (fd < 0)
		fail(name);
	return fd;
}

static long long read_number(int fd)
{
	char text[32];
	ssize_t length = pread(fd, text, sizeof(text) - 1, 0);

	if (length <= 0)
		fail("memory.current");
	text[length] = '\0';
	return atoll(text);
}

int main(int argc, char **argv)
{
	struct sched_param priority = { .sched_priority = 1 };
	struct timespec next;
	long long line, usage;
	long period_ns;
	int dir, current, freeze;

	if (argc != 4) {
		fprintf(stderr, "usage: agentrm-poll CGROUP LINE_BYTES PERIOD_US\n");
		return 1;
	}
	dir = open_in(AT_FDCWD, argv[1], O_PATH | O_DIRECTORY);
	current = open_in(dir, "memory.current", O_RDONLY);
	freeze = open_in(dir, "cgroup.freeze", O_WRONLY);
	line = atoll(argv[2]);
	period_ns = atol(argv[3]) * 1000;
	sched_setscheduler(0, SCHED_FIFO, &priority);
	/* Ready: the load may start. */
	if (write(STDOUT_FILENO, "\n", 1) != 1)
		fail("stdout");
	clock_gettime(CLOCK_MONOTONIC, &next);
	while ((usage = read_number(current)) <= line) {
		next.tv_nsec += period_ns;
		next.tv_sec += next.tv_nsec / 1000000000;
		next.tv_nsec %= 1000000000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
	if (write(freeze, "1", 1) != 1)
		fail("cgroup.freeze");
	printf("%lld\n", usage);
	return 0;
}
