// SPDX-License-Identifier: Apache-2.0
#include "runtime.h"

#include <fcntl.h>
#include <linux/limits.h>
#include <unistd.h>

#include "clock.h"
#include "text.h"

/* Eight beats of the daemon: the same age at which the guard takes it for hung. */
#define BEAT_MAX_AGE_NS (2000 * NS_PER_MS)

/* Writes the path of `name` beside the socket to `path`; false if it is too long. */
static bool beside(const char *socket_path, const char *name, char path[static PATH_MAX])
{
	struct text t = { .at = path, .end = path + PATH_MAX - 1 };
	size_t dir = len(socket_path);

	while (dir && socket_path[dir - 1] != '/')
		dir--;
	text_bytes(&t, socket_path, dir);
	text_put(&t, name);
	*t.at = '\0';
	return !t.full;
}

bool daemon_alive(const char *socket_path)
{
	char path[PATH_MAX];
	uint64_t beat_ns = 0;
	int64_t age;
	long fd, ret;

	if (!beside(socket_path, "heartbeat", path))
		return false;
	/* O_NONBLOCK: whatever lies there must not hold the call up. */
	fd = SYS4(openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
	if (fd < 0)
		return false;
	ret = SYS3(read, fd, &beat_ns, sizeof(beat_ns));
	SYS1(close, fd);
	age = now_ns() - (int64_t)beat_ns;
	return ret == sizeof(beat_ns) && age >= 0 && age < BEAT_MAX_AGE_NS;
}

bool fail_closed(const char *socket_path)
{
	char path[PATH_MAX];

	return beside(socket_path, "fail-closed", path) && SYS3(faccessat, AT_FDCWD, path, F_OK) == 0;
}
