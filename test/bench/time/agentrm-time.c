// SPDX-License-Identifier: Apache-2.0
/*
 * Measures how long commands take from the start of their process to its end, without a shell or Node in between.
 *
 *   agentrm-time rounds COUNT PAUSE_MS -- COMMAND... [-- COMMAND...]...
 *	COUNT rounds; in each, every command once, in order, with a pause before each. One line a round: the
 *	nanoseconds of each command, separated by spaces.
 *   agentrm-time burst COUNT -- COMMAND...
 *	COUNT processes of one command at once. One line for each as it ends: nanoseconds since the first was
 *	started.
 *   agentrm-time rate COUNT PERIOD_US MOST -- COMMAND...
 *	COUNT processes of one command, one due each PERIOD_US whether or not those before have ended. At most MOST
 *	run at once: one that is due meanwhile is held back until another has ended. One line for each as it ends:
 *	the nanoseconds from the start to when it was due, from when it was due to its end, and 1 if it was held
 *	back, else 0.
 *
 * Ends with 1 and a line on stderr as soon as a command ends otherwise than with 0 (burst, rate: after all have ended).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static void fail(const char *what, int error)
{
	fprintf(stderr, "agentrm-time: %s: %s\n", what, strerror(error));
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static pid_t start_with(const posix_spawnattr_t *attributes, char **command)
{
	pid_t pid;
	int error = posix_spawn(&pid, command[0], NULL, attributes, command, environ);

	if (error)
		fail(command[0], error);
	return pid;
}

static pid_t start(char **command)
{
	return start_with(NULL, command);
}

static int ended_well(const char *name, int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 1;
	fprintf(stderr, "agentrm-time: %s ended with status %#x\n", name, status);
	return 0;
}

static int run_rounds(long count, long pause_ms, char ***commands)
{
	struct timespec pause = { .tv_sec = pause_ms / 1000, .tv_nsec = pause_ms % 1000 * 1000000 };

	while (count--) {
		for (char ***command = commands; *command; command++) {
			int64_t begin;
			int status;

			if (pause_ms)
				nanosleep(&pause, NULL);
			begin = now_ns();
			start(*command);
			if (wait(&status) < 0)
				fail("wait", errno);
			if (!ended_well((*command)[0], status))
				return 1;
			printf("%lld%c", (long long)(now_ns() - begin), command[1] ? ' ' : '\n');
		}
	}
	return 0;
}

static int run_burst(long count, char **command)
{
	int64_t begin = now_ns();
	long started = 0, running = 0;
	int status, result = 0;

	while (started < count || running) {
		pid_t pid = waitpid(-1, &status, started < count ? WNOHANG : 0);

		if (pid > 0) {
			running--;
			result |= !ended_well(command[0], status);
			printf("%lld\n", (long long)(now_ns() - begin));
		} else if (started < count) {
			start(command);
			started++;
			running++;
		} else {
			fail("wait", errno);
		}
	}
	return result;
}

struct due {
	pid_t pid;
	/* Since the start. */
	int64_t ns;
	int held;
};

static int run_rate(long count, long period_us, long most, char **command)
{
	struct due *running = calloc(most, sizeof(*running));
	int64_t begin, full_until = 0;
	posix_spawnattr_t attributes;
	sigset_t blocked, before;
	long started = 0, number = 0;
	int result = 0;

	if (!running)
		fail("calloc", errno);
	/* Blocked, the end of a process is a wake-up that cannot be missed; commands get their mask as it was. */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	sigprocmask(SIG_BLOCK, &blocked, &before);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigmask(&attributes, &before);
	begin = now_ns();
	while (started < count || number) {
		int64_t due = started * period_us * 1000, now;
		struct timespec until;
		int status;
		pid_t pid = number ? waitpid(-1, &status, WNOHANG) : 0;

		now = now_ns() - begin;
		if (pid < 0)
			fail("wait", errno);
		if (pid) {
			struct due *one = running;

			while (one->pid != pid)
				one++;
			if (number == most)
				full_until = now;
			result |= !ended_well(command[0], status);
			printf("%lld %lld %d\n", (long long)one->ns, (long long)(now - one->ns), one->held);
			*one = running[--number];
		} else if (started == count || number == most) {
			sigwaitinfo(&blocked, NULL);
		} else if (now >= due) {
			running[number++] = (struct due){ start_with(&attributes, command), due, due < full_until };
			started++;
		} else {
			until = (struct timespec){ (due - now) / 1000000000, (due - now) % 1000000000 };
			sigtimedwait(&blocked, NULL, &until);
		}
	}
	posix_spawnattr_destroy(&attributes);
	free(running);
	return result;
}

int main(int argc, char **argv)
{
	char ***commands = calloc(argc + 1, sizeof(*commands));
	int count = 0;

	if (!commands)
		fail("calloc", errno);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--"))
			continue;
		argv[i] = NULL;
		if (i + 1 < argc)
			commands[count++] = argv + i + 1;
	}
	if (count && argc > 4 && argv[3] && !strcmp(argv[1], "rounds"))
		return run_rounds(atol(argv[2]), atol(argv[3]), commands);
	if (count == 1 && argc > 3 && !strcmp(argv[1], "burst"))
		return run_burst(atol(argv[2]), commands[0]);
	if (count == 1 && argc > 5 && argv[3] && argv[4] && !strcmp(argv[1], "rate") && atol(argv[4]) > 0)
		return run_rate(atol(argv[2]), atol(argv[3]), atol(argv[4]), commands[0]);
	fprintf(stderr, "usage: agentrm-time rounds COUNT PAUSE_MS | burst COUNT | rate COUNT PERIOD_US MOST"
			" -- COMMAND...\n");
	return 1;
}
