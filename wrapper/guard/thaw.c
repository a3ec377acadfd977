// SPDX-License-Identifier: Apache-2.0
#include "thaw.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A call is two levels below the root; what a command nests below it must not hold us up. */
#define DEPTH_MAX 32

static bool is_stopped(int pid)
{
	char path[32], stat[512];
	const char *end;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, stat, sizeof(stat) - 1);
	close(fd);
	if (n <= 0)
		return false;
	stat[n] = '\0';
	/* The name may hold anything, parentheses too: the state follows the last one. */
	end = strrchr(stat, ')');
	return end && end[1] == ' ' && end[2] == 'T';
}

static bool is_member(int cgroup, int pid)
{
	int fd = openat(cgroup, "cgroup.procs", O_RDONLY | O_CLOEXEC | O_NOFOLLOW), listed;
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	bool found = false;

	if (!f)
		return false;
	while (!found && fscanf(f, "%d", &listed) == 1)
		found = listed == pid;
	fclose(f);
	return found;
}

/*
 * Continues `pid` if it is stopped. The pidfd comes first: what is checked
 * afterwards is then true of the very process that gets the signal, however fast
 * the number is given to another.
 */
static int continue_task(int cgroup, int pid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), sent = 0;

	if (pidfd < 0)
		return 0;
	if (is_member(cgroup, pid) && is_stopped(pid))
		sent = syscall(SYS_pidfd_send_signal, pidfd, SIGCONT, NULL, 0) == 0;
	close(pidfd);
	return sent;
}

static int continue_tasks(int cgroup, const struct stops *stops)
{
	int fd, pid, continued = 0;
	FILE *f;

	if (!stops->count)
		return 0;
	fd = openat(cgroup, "cgroup.procs", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	f = fd < 0 ? NULL : fdopen(fd, "r");
	if (!f)
		return 0;
	while (fscanf(f, "%d", &pid) == 1)
		if (stops_contain(stops, pid))
			continued += continue_task(cgroup, pid);
	fclose(f);
	return continued;
}

static void set(int cgroup, const char *file, const char *value)
{
	int fd = openat(cgroup, file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return;
	if (write(fd, value, strlen(value)) < 0)
		fprintf(stderr, "agentrm-guard: %s: %s\n", file, strerror(errno));
	close(fd);
}

/* Takes `cgroup`, a directory, over. */
static int thaw_below(int cgroup, const struct stops *stops, int depth)
{
	const struct dirent *entry;
	int continued;
	DIR *dir;

	set(cgroup, "cgroup.freeze", "0");
	continued = continue_tasks(cgroup, stops);
	dir = depth < DEPTH_MAX ? fdopendir(cgroup) : NULL;
	if (!dir) {
		close(cgroup);
		return continued;
	}
	while ((entry = readdir(dir))) {
		int child;

		if (entry->d_name[0] == '.' || (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN))
			continue;
		child = openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (child >= 0)
			continued += thaw_below(child, stops, depth + 1);
	}
	closedir(dir);
	return continued;
}

int thaw_tree(const char *root, const struct stops *stops)
{
	int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	/* The pool's tripwire. Nobody would make room any more: all that grow would sleep there, the first in order too. */
	set(fd, "memory.high", "max");
	return thaw_below(fd, stops, 0);
}
