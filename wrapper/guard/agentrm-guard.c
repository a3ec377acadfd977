// SPDX-License-Identifier: Apache-2.0
// Undoes what a daemon that died or hangs has left: frozen cgroups, and tasks that
// the kernel program stopped on its behalf.

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/types.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "heartbeat.h"
#include "notify.h"
#include "stops.h"
#include "thaw.h"
#include "../../bpf/abi.h"

#define MS 1000000LL

/* Twice the daemon's beat: every look finds a new one. */
#define TICK_MS 500
/* Eight beats of the daemon, and the age at which the kernel program stops nothing more. */
#define STALE_NS ((int64_t)AGENTRM_HEARTBEAT_STALE_NS)
/*
 * After the daemon's end tasks may still stop: the kernel program notices a
 * missing beat within 2 s, and a task asleep in the throttle stops when it wakes,
 * another 2 s later at worst.
 */
#define SETTLE_NS (5000 * MS)

/* Nothing else may take the guard's place, so it goes last, but before what is exempt altogether. */
#define OOM_SCORE_ADJ "-900"

#define PIN_ROOT "/sys/fs/bpf/agentrm"

struct guard {
	const char *cgroup, *heartbeat, *pins;
	int64_t start_ns;
	int64_t ended_ns; /* when the daemon's pipe closed; 0: it has not, or there is none */
	bool stale;
};

static int usage(void)
{
	fputs("usage: agentrm-guard --cgroup DIRECTORY --heartbeat FILE [--pins DIRECTORY]\n", stderr);
	return 2;
}

static bool parse(int argc, char **argv, struct guard *g)
{
	static const struct option options[] = {
		{ "cgroup", required_argument, NULL, 'c' },
		{ "heartbeat", required_argument, NULL, 'h' },
		{ "pins", required_argument, NULL, 'p' },
		{ 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'c')
			g->cgroup = optarg;
		else if (option == 'h')
			g->heartbeat = optarg;
		else if (option == 'p')
			g->pins = optarg;
		else
			return false;
	}
	return g->cgroup && g->heartbeat && optind == argc;
}

/* Out of reach of the daemon's terminal, of swapping and, where allowed, of the OOM killer. */
static void harden(void)
{
	int fd;

	setsid();
	signal(SIGHUP, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, OOM_SCORE_ADJ, sizeof(OOM_SCORE_ADJ) - 1) < 0 && errno != EACCES)
		perror("agentrm-guard: oom_score_adj");
	close(fd);
}

/* Where a daemon pins for this root unless it says otherwise: by ABI version and id (inode) of the cgroup. */
static void read_stops(const struct guard *g, struct stops *stops)
{
	char pins[sizeof(PIN_ROOT) + 64];
	struct stat root = { 0 };

	if (!g->pins) {
		stat(g->cgroup, &root);
		snprintf(pins, sizeof(pins), PIN_ROOT "/v%d-%ju", AGENTRM_ABI_VERSION, (uintmax_t)root.st_ino);
	}
	stops_read(stops, g->pins ? g->pins : pins);
}

static void thaw_all(const struct guard *g)
{
	static struct stops stops;

	read_stops(g, &stops);
	thaw_tree(g->cgroup, &stops);
}

static void say(const char *what)
{
	fprintf(stderr, "agentrm-guard: %s\n", what);
}

/* Looks whether the daemon is alive and acts on it. True when there is nothing left to guard. */
static bool tick(struct guard *g)
{
	int64_t now = now_ns(), beat = heartbeat_ns(g->heartbeat);
	bool stale;

	if (g->ended_ns) {
		/* A beat from after the end: a new daemon has taken over, with a guard of its own. */
		if (beat > g->ended_ns || now - g->ended_ns > SETTLE_NS)
			return true;
		thaw_all(g);
		return false;
	}
	/* A daemon that has never beaten gets as long from our start as one between two beats. */
	stale = now - (beat > g->start_ns ? beat : g->start_ns) > STALE_NS;
	if (stale != g->stale)
		say(stale ? "no heartbeat, thawing" : "the heartbeat is back");
	g->stale = stale;
	/* At each tick, for a task may stop a while after it was told to. */
	if (stale)
		thaw_all(g);
	return false;
}

/* Reads from the daemon's pipe. True if it says that it stops in order. */
static bool read_pipe(struct guard *g)
{
	char bytes[64];
	ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));

	for (ssize_t i = 0; i < n; i++)
		if (bytes[i] == 'q')
			return true;
	if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
		say("the daemon has ended, thawing");
		g->ended_ns = now_ns();
		thaw_all(g);
	}
	return false;
}

static int watch(struct guard *g, bool pipe)
{
	const struct itimerspec period = {
		.it_interval.tv_nsec = TICK_MS * MS,
		.it_value.tv_nsec = TICK_MS * MS,
	};
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	bool starved = false;
	uint64_t ticks;

	if (timer < 0 || timerfd_settime(timer, 0, &period, NULL) < 0) {
		perror("agentrm-guard: timerfd");
		return 1;
	}
	for (;;) {
		struct pollfd fds[] = {
			{ .fd = timer, .events = POLLIN },
			{ .fd = pipe && !g->ended_ns ? STDIN_FILENO : -1, .events = POLLIN },
		};

		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents && read_pipe(g))
			return 0;
		if (!fds[0].revents || read(timer, &ticks, sizeof(ticks)) != sizeof(ticks))
			continue;
		/*
		 * More than one tick in one read: the guard itself was kept from running,
		 * so the daemon may have been as well, and gets one tick more to beat.
		 */
		starved = ticks > 1 && !starved;
		if (!starved && tick(g))
			return 0;
	}
}

int main(int argc, char **argv)
{
	struct guard g = { .start_ns = now_ns() };
	struct stat in;
	bool pipe;

	if (!parse(argc, argv, &g))
		return usage();
	/* A service manager gives /dev/null, whose end means nothing. */
	pipe = fstat(STDIN_FILENO, &in) == 0 && (S_ISFIFO(in.st_mode) || S_ISSOCK(in.st_mode));
	harden();
	notify_ready();
	return watch(&g, pipe);
}
