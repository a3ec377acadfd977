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
 *
 * Ends with 1 and a line on stderr as soon as a command ends otherwise than with 0 (a burst: after all have ended).
 */
#define _GNU_SOURCE
#include <errno.h>
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

static pid_t start(char **command)
{
	pid_t pid;
	int error = posix_spawn(&pid, command[0], NULL, NULL, command, environ);

	if (error)
		fail(command[0], error);
	return pid;
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
	fprintf(stderr, "usage: agentrm-time rounds COUNT PAUSE_MS | burst COUNT -- COMMAND...\n");
	return 1;
}
