// SPDX-License-Identifier: Apache-2.0
/*
 * Uses memory as fast as it can, in the ways in which programs do, for tests and benchmarks of limits.
 *
 *   agentrm-load [--thp] [--progress FILE] [--bytes N] SHAPE
 *
 *   procs N         N processes touch N x bytes of anonymous memory, page by page
 *   threads N       the same in N threads of one process
 *   forks N         N processes one after the other, each touches `bytes` and stays until the end
 *   hold FIFO       one process touches `bytes`, then waits for a line in FIFO, and touches as much as that says
 *   tmpfs DIR SIZE  write(2) of SIZE bytes at a time into a file in DIR, `bytes` in total
 *   populate        one mmap(MAP_POPULATE) of `bytes`
 *   read FILE       `bytes` of anonymous memory first, then FILE from start to end, through the page cache
 *   reread FILE N   `bytes` of anonymous memory first, then the last N of FILE, mapped, again and again until it is killed
 *   gaps MS         touches memory page by page and prints each gap of more than MS between two touches: its start
 *                   and end by CLOCK_MONOTONIC in ns
 *   stall LINE MS POOL
 *                   touches memory page by page until it has stood still for more than MS between two touches while
 *                   POOL, a memory.current that is read every 64 KiB, was at LINE, less what is charged ahead. Prints
 *                   each gap of more than a fifth of that by CLOCK_REALTIME in ns: when POOL was last seen not to be
 *                   over LINE, its start, its end
 *   rounds N        N times: maps `bytes`, touches them and unmaps them; prints the nanoseconds of all together
 *
 * Sizes take K, M or G. --thp leaves huge pages on. FILE of --progress holds the number of bytes used so far, as a
 * native u64, while it runs. Ends with 0 when all is used; any failure ends it with 1 and a line on stderr.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t own_progress;
static uint64_t *progress = &own_progress;
static size_t bytes = 64 << 20;

static void fail(const char *what)
{
	fprintf(stderr, "agentrm-load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static size_t parse_size(const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	switch (*end) {
	case 'G':
		value <<= 10; /* fall through */
	case 'M':
		value <<= 10; /* fall through */
	case 'K':
		value <<= 10;
		end++;
	}
	if (end == text || *end) {
		errno = EINVAL;
		fail(text);
	}
	return value;
}

static char *reserve(int flags)
{
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	if (memory == MAP_FAILED)
		fail("mmap");
	return memory;
}

static void advance(size_t length)
{
	__atomic_fetch_add(progress, length, __ATOMIC_RELAXED);
}

static int64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static void *touch(void *unused)
{
	size_t page = sysconf(_SC_PAGESIZE);
	char *memory = reserve(0);

	(void)unused;
	for (size_t at = 0; at < bytes; at += page) {
		memory[at] = 1;
		advance(page);
	}
	return NULL;
}

/* Waits for all children; anything but a plain exit 0 of each is a failure. */
static int reap(void)
{
	int status, result = 0;

	while (wait(&status) > 0)
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			result = 1;
	return result;
}

static int run_procs(int count)
{
	for (int i = 0; i < count; i++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (pid == 0) {
			touch(NULL);
			_exit(0);
		}
	}
	return reap();
}

static int run_threads(int count)
{
	pthread_t *threads = calloc(count, sizeof(*threads));

	if (!threads)
		fail("calloc");
	for (int i = 0; i < count; i++)
		if ((errno = pthread_create(&threads[i], NULL, touch, NULL)))
			fail("pthread_create");
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	free(threads);
	return 0;
}

/* The children stay until the write end of the pipe is closed: memory that is freed at once fills no limit. */
static int run_forks(int count)
{
	int hold[2], ready[2];
	char nothing = 0;

	if (pipe(hold) || pipe(ready))
		fail("pipe");
	for (int i = 0; i < count; i++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (pid == 0) {
			close(hold[1]);
			touch(NULL);
			if (write(ready[1], &nothing, 1) != 1)
				_exit(1);
			_exit(read(hold[0], &nothing, 1) == 0 ? 0 : 1);
		}
	}
	/* A child that failed or was killed closes its end as well, so this ends in any case. */
	close(ready[1]);
	for (int i = 0; i < count && read(ready[0], &nothing, 1) == 1; i++)
		;
	close(hold[1]);
	return reap();
}

static int run_hold(const char *path)
{
	char line[32] = { 0 };
	int fd;

	touch(NULL);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, line, sizeof(line) - 1) < 0)
		fail(path);
	line[strcspn(line, "\n")] = '\0';
	bytes = parse_size(line);
	if (bytes)
		touch(NULL);
	return 0;
}

static int run_tmpfs(const char *directory, size_t size)
{
	int fd = open(directory, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	char *buffer = malloc(size);

	if (fd < 0)
		fail(directory);
	if (!buffer)
		fail("malloc");
	memset(buffer, 1, size);
	for (size_t done = 0; done < bytes; done += size) {
		if (write(fd, buffer, size) != (ssize_t)size)
			fail("write");
		advance(size);
	}
	return 0;
}

static int run_populate(void)
{
	reserve(MAP_POPULATE);
	advance(bytes);
	return 0;
}

static int run_read(const char *path)
{
	static char buffer[1 << 20];
	ssize_t length;
	int fd;

	touch(NULL);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail(path);
	while ((length = read(fd, buffer, sizeof(buffer))) > 0)
		advance(length);
	if (length < 0)
		fail(path);
	return 0;
}

static _Noreturn void run_reread(const char *path, size_t length)
{
	size_t page = sysconf(_SC_PAGESIZE);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	const volatile char *file;
	off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

	if (end >= 0 && end < (off_t)length)
		errno = ENODATA;
	if (end < (off_t)length)
		fail(path);
	touch(NULL);
	file = mmap(NULL, length, PROT_READ, MAP_PRIVATE, fd, (end - length) / page * page);
	if (file == MAP_FAILED)
		fail(path);
	for (;;)
		for (size_t at = 0; at < length; at += page)
			(void)file[at];
}

/* The gaps are printed at the end: a pipe that is full would make gaps of its own. */
static int run_gaps(long limit_ms)
{
	size_t page = sysconf(_SC_PAGESIZE), count = 0;
	char *memory = reserve(0);
	int64_t last = now_ns();
	static struct {
		int64_t start, end;
	} gaps[10000];

	for (size_t at = 0; at < bytes; at += page) {
		int64_t now;

		memory[at] = 1;
		now = now_ns();
		if (now - last > limit_ms * 1000000 && count < sizeof(gaps) / sizeof(gaps[0])) {
			gaps[count].start = last;
			gaps[count++].end = now;
		}
		last = now;
	}
	for (size_t i = 0; i < count; i++)
		printf("%lld %lld\n", (long long)gaps[i].start, (long long)gaps[i].end);
	return 0;
}

static size_t read_number(int fd)
{
	char text[32] = { 0 };

	if (pread(fd, text, sizeof(text) - 1, 0) <= 0)
		fail("memory.current");
	return strtoull(text, NULL, 10);
}

static int run_stall(size_t line, long limit_ms, const char *pool)
{
	size_t page = sysconf(_SC_PAGESIZE), look = 64 << 10, ahead = 1 << 20, used = 0;
	int64_t limit_ns = limit_ms * INT64_C(1000000), enough = 0, last;
	char *memory = reserve(0);
	int fd = open(pool, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail(pool);
	last = clock_ns(CLOCK_REALTIME);
	for (size_t at = 0; at < bytes; at += page) {
		bool looks = at % look == 0;
		int64_t now;

		/* It may be stopped in either of the two. */
		if (looks)
			used = read_number(fd);
		memory[at] = 1;
		now = clock_ns(CLOCK_REALTIME);
		if (now - last > limit_ns / 5)
			printf("%lld %lld %lld\n", (long long)enough, (long long)last, (long long)now);
		if (now - last > limit_ns && used + ahead > line)
			return 0;
		if (looks && used <= line)
			enough = now;
		last = now;
	}
	fprintf(stderr, "agentrm-load: did not stand still\n");
	return 1;
}

static int run_rounds(int count)
{
	size_t page = sysconf(_SC_PAGESIZE);
	int64_t begin = now_ns();

	while (count--) {
		char *memory = reserve(0);

		for (size_t at = 0; at < bytes; at += page)
			memory[at] = 1;
		munmap(memory, bytes);
	}
	printf("%lld\n", (long long)(now_ns() - begin));
	return 0;
}

static void map_progress(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0 || ftruncate(fd, sizeof(*progress)))
		fail(path);
	progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (progress == MAP_FAILED)
		fail(path);
	close(fd);
}

int main(int argc, char **argv)
{
	int huge = 0, at = 1;

	for (; at < argc && !strncmp(argv[at], "--", 2); at++) {
		if (!strcmp(argv[at], "--thp"))
			huge = 1;
		else if (!strcmp(argv[at], "--progress") && at + 1 < argc)
			map_progress(argv[++at]);
		else if (!strcmp(argv[at], "--bytes") && at + 1 < argc)
			bytes = parse_size(argv[++at]);
		else
			break;
	}
	if (!huge && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
		fail("prctl");

	int rest = argc - at;
	const char *shape = rest > 0 ? argv[at] : "";

	if (!strcmp(shape, "procs") && rest == 2)
		return run_procs(atoi(argv[at + 1]));
	if (!strcmp(shape, "threads") && rest == 2)
		return run_threads(atoi(argv[at + 1]));
	if (!strcmp(shape, "forks") && rest == 2)
		return run_forks(atoi(argv[at + 1]));
	if (!strcmp(shape, "hold") && rest == 2)
		return run_hold(argv[at + 1]);
	if (!strcmp(shape, "tmpfs") && rest == 3)
		return run_tmpfs(argv[at + 1], parse_size(argv[at + 2]));
	if (!strcmp(shape, "populate") && rest == 1)
		return run_populate();
	if (!strcmp(shape, "read") && rest == 2)
		return run_read(argv[at + 1]);
	if (!strcmp(shape, "reread") && rest == 3)
		run_reread(argv[at + 1], parse_size(argv[at + 2]));
	if (!strcmp(shape, "gaps") && rest == 2)
		return run_gaps(atoi(argv[at + 1]));
	if (!strcmp(shape, "stall") && rest == 4)
		return run_stall(parse_size(argv[at + 1]), atoi(argv[at + 2]), argv[at + 3]);
	if (!strcmp(shape, "rounds") && rest == 2)
		return run_rounds(atoi(argv[at + 1]));
	fprintf(stderr, "usage: agentrm-load [--thp] [--progress FILE] [--bytes N] SHAPE, see the head of its source\n");
	return 1;
}
