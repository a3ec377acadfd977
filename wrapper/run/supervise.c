// SPDX-License-Identifier: Apache-2.0
// The conversation with the daemon while the command runs and when it has ended.
#include <poll.h>

#include "request.h"
#include "run.h"
#include "runtime.h"
#include "text.h"

/* How soon, and how rarely, a lost daemon is looked for. */
#define RECONNECT_MIN_NS (100 * NS_PER_MS)
#define RECONNECT_MAX_NS (1000 * NS_PER_MS)
static void send_line(struct run *run, struct text *t, const char *line)
{
	if (!channel_send(&run->daemon, line, (size_t)(t->at - line), now_ns() + FIRST_ANSWER_NS))
		channel_close(&run->daemon);
}

void send_late(struct run *run)
{
	char line[64];
	struct text t = TEXT_IN(line);

	request_late(&t);
	send_line(run, &t, line);
}

static void send_adopt(struct run *run)
{
	char line[ID_BYTES * 8];
	struct text t = TEXT_IN(line);

	request_adopt(&t, run->call);
	send_line(run, &t, line);
}

static void send_end(struct run *run, int status, const struct rusage *usage)
{
	char line[256];
	struct text t = TEXT_IN(line);

	request_end(&t, status, usage);
	send_line(run, &t, line);
}

/* Sets when to look for the daemon next: later each time, until it has said something. */
static void back_off(struct run *run)
{
	run->backoff_ns *= 2;
	if (run->backoff_ns < RECONNECT_MIN_NS)
		run->backoff_ns = RECONNECT_MIN_NS;
	else if (run->backoff_ns > RECONNECT_MAX_NS)
		run->backoff_ns = RECONNECT_MAX_NS;
	run->reconnect_ns = now_ns() + run->backoff_ns;
}

static void reconnect(struct run *run)
{
	back_off(run);
	if (daemon_connect(&run->daemon, run->socket, run->uid, 0) == 0)
		send_adopt(run);
}

/* Takes what the daemon has to say while the command runs, or after it. True once it has said `bye`. */
static bool take_lines(struct run *run, int64_t deadline_ns)
{
	enum channel_state state;
	char *line;

	while ((state = channel_line(&run->daemon, &line, deadline_ns)) == CHANNEL_LINE) {
		run->backoff_ns = 0;
		if (begins(line, "note ")) {
			note_print(run, line + len("note "));
		} else if (same(line, "bye")) {
			return true;
		} else if (same(line, "gone")) {
			run->call[0] = '\0';
			state = CHANNEL_EOF;
			break;
		} else if (begins(line, "go ") && !run->call[0]) {
			enum answer answer = answer_parse_go(run, line + len("go "));

			/* The command is past being forked into it. */
			if (run->daemon.fd >= 0)
				SYS1(close, channel_take_fd(&run->daemon));
			if (answer == ANSWER_CLONE || answer == ANSWER_MOVE)
				send_late(run);
		}
	}
	if (state != CHANNEL_TIMEOUT) {
		channel_close(&run->daemon);
		back_off(run);
	}
	return false;
}

void supervise(struct run *run, int child, int *status, struct rusage *usage)
{
	while (!signals_reap(child, status, usage)) {
		struct pollfd fds[] = {
			{ .fd = run->signals.fd, .events = POLLIN },
			{ .fd = run->daemon.sock, .events = POLLIN },
		};
		bool lost = run->daemon.sock < 0 && run->call[0];
		struct timespec left = time_left(run->reconnect_ns);

		SYS5(ppoll, fds, 2, lost ? &left : NULL, NULL, 0);
		signals_pass(&run->signals, child);
		if (run->daemon.sock >= 0)
			take_lines(run, 0);
		else if (lost && now_ns() >= run->reconnect_ns)
			reconnect(run);
	}
}

/* Waits for the daemon's report, longer if it is busy or being started. */
static void await_report(struct run *run, int64_t most_ns)
{
	if (!take_lines(run, now_ns() + FIRST_ANSWER_NS) && run->daemon.sock >= 0 && daemon_expected(run))
		take_lines(run, most_ns);
}

void report_end(struct run *run, int status, const struct rusage *usage)
{
	int64_t most_ns = now_ns() + BUSY_ANSWER_NS;

	/* Without a call the daemon has nothing to end. */
	while (run->call[0]) {
		if (run->daemon.sock < 0)
			reconnect(run);
		if (run->daemon.sock >= 0)
			send_end(run, status, usage);
		if (run->daemon.sock >= 0)
			await_report(run, most_ns);
		/*
		 * Lost, but it was there just now: it is being restarted. To its successor a call whose
		 * wrapper has gone without a word was killed, and so is all that it has left running.
		 */
		if (run->daemon.sock >= 0 || !daemon_alive(run->socket) || now_ns() >= most_ns)
			return;
		sleep_ns(RECONNECT_MIN_NS);
	}
}
