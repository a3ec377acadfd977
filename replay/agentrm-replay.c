// SPDX-License-Identifier: Apache-2.0
/*
 * agentrm-replay: one session of `agentrm replay`. Holds as much memory as a trace says, when it says so.
 *
 * Prints `ready`, then reads its orders from stdin, numbers with white space between them:
 *
 *	START BASE COUNT		CLOCK_MONOTONIC at time 0 in ns, bytes to hold from then on, number of samples
 *	AT BYTES			COUNT times: ns since START, bytes to hold beside BASE
 *
 * More memory is mapped anew and every page of it touched; less unmaps what came last. A sample that comes late moves
 * all later ones by as much: what a session is kept from doing it does afterwards, so a stall makes it longer.
 *
 * At the end it prints one line of JSON: the ns from START to the end, the ns by which it came late in all, and the
 * ns that each growth took. Ends with 1 and a line on stderr on any failure; that includes the end of stdin, for
 * then nobody waits for the result.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_SECOND INT64_C(1000000000)
/* A timer wakes a process that late on a busy machine: that is no stall, and must not add up over a trace. */
#define WAKE_UP_NS (INT64_C(5) * 1000000)

struct sample {
	int64_t at_ns;
	size_t bytes;
};

/* What is mapped, in the order in which it came. There is never more of it than there were growths. */
struct block {
	char *start;
	size_t length;
};

static struct block *blocks;
static size_t block_count, held_bytes, page_bytes;

static void __attribute__((noreturn)) fail(const char *what)
{
	fprintf(stderr, "agentrm-replay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void __attribute__((noreturn)) refuse(const char *what)
{
	fprintf(stderr, "agentrm-replay: %s\n", what);
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NS_PER_SECOND + now.tv_nsec;
}

/* Nothing comes on stdin after the orders, so anything to read there is its end. */
static void wait_until(int64_t due_ns)
{
	for (int64_t left = due_ns - now_ns(); left > 0; left = due_ns - now_ns()) {
		struct timespec timeout = { .tv_sec = left / NS_PER_SECOND, .tv_nsec = left % NS_PER_SECOND };
		struct pollfd orders = { .fd = STDIN_FILENO, .events = POLLIN };
		int ready = ppoll(&orders, 1, &timeout, NULL);

		if (ready > 0)
			refuse("stdin has ended");
		if (ready < 0 && errno != EINTR)
			fail("ppoll");
	}
}

static void grow(size_t length)
{
	char *start = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (start == MAP_FAILED)
		fail("mmap");
	for (size_t at = 0; at < length; at += page_bytes)
		((volatile char *)start)[at] = 1;
	blocks[block_count++] = (struct block){ start, length };
}

static void shrink(size_t length)
{
	while (length) {
		struct block *last = &blocks[block_count - 1];
		size_t part = length < last->length ? length : last->length;

		if (munmap(last->start + last->length - part, part))
			fail("munmap");
		last->length -= part;
		length -= part;
		if (!last->length)
			block_count--;
	}
}

/* Holds `bytes`, rounded up to pages. Returns the ns that it took to grow, or -1 if it did not grow. */
static int64_t hold(size_t bytes)
{
	size_t wanted = (bytes + page_bytes - 1) / page_bytes * page_bytes;
	int64_t begin = now_ns(), took = -1;

	if (wanted > held_bytes) {
		grow(wanted - held_bytes);
		took = now_ns() - begin;
	} else {
		shrink(held_bytes - wanted);
	}
	held_bytes = wanted;
	return took;
}

static uint64_t read_number(void)
{
	uint64_t value;

	if (scanf("%" SCNu64, &value) != 1 || value > INT64_MAX)
		refuse("stdin has ended, or is no trace");
	return value;
}

static void *reserve(size_t count, size_t size)
{
	void *memory = calloc(count + 1, size);

	if (!memory)
		fail("calloc");
	return memory;
}

int main(void)
{
	int64_t start_ns, shift_ns = 0, *growths_ns;
	size_t base_bytes, count, growths = 0;
	struct sample *samples;

	page_bytes = sysconf(_SC_PAGESIZE);
	/* All sessions alike, managed or not: AgentRM turns huge pages off for the calls that it manages. */
	if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
		fail("prctl");
	puts("ready");
	if (fflush(stdout))
		fail("stdout");

	start_ns = read_number();
	base_bytes = read_number();
	count = read_number();
	samples = reserve(count, sizeof(*samples));
	growths_ns = reserve(count, sizeof(*growths_ns));
	blocks = reserve(count + 1, sizeof(*blocks));
	for (size_t i = 0; i < count; i++) {
		samples[i].at_ns = read_number();
		samples[i].bytes = read_number();
	}

	wait_until(start_ns);
	hold(base_bytes);
	for (size_t i = 0; i < count; i++) {
		int64_t due_ns = start_ns + samples[i].at_ns + shift_ns, late_ns, took_ns;

		wait_until(due_ns);
		late_ns = now_ns() - due_ns;
		if (late_ns > WAKE_UP_NS)
			shift_ns += late_ns;
		took_ns = hold(base_bytes + samples[i].bytes);
		if (took_ns >= 0)
			growths_ns[growths++] = took_ns;
	}

	printf("{\"totalNs\":%" PRId64 ",\"lateNs\":%" PRId64 ",\"growthsNs\":[", now_ns() - start_ns, shift_ns);
	for (size_t i = 0; i < growths; i++)
		printf("%s%" PRId64, i ? "," : "", growths_ns[i]);
	puts("]}");
	if (fflush(stdout))
		fail("stdout");
	return 0;
}
