// SPDX-License-Identifier: Apache-2.0
#include "heartbeat.h"

#include <endian.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int64_t heartbeat_ns(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	uint64_t beat = 0;
	ssize_t n;

	if (fd < 0)
		return 0;
	n = read(fd, &beat, sizeof(beat));
	close(fd);
	beat = le64toh(beat);
	return n == sizeof(beat) && beat <= (uint64_t)now_ns() ? (int64_t)beat : 0;
}
