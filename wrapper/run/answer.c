// SPDX-License-Identifier: Apache-2.0
// The conversation with the daemon before the command starts.
#include <errno.h>
#include <string.h>

#include "run.h"
#include "runtime.h"
#include "say.h"
#include "text.h"

/* More lines than that about one call nobody reads. */
#define NOTES_MAX 32

int daemon_connect(struct channel *c, const char *socket, uint32_t uid, int64_t deadline_ns)
{
	int ret = channel_open(c, socket, deadline_ns);

	/* Anyone can listen somewhere; only root and the caller are told what the caller runs. */
	if (ret == 0 && c->peer.uid != 0 && c->peer.uid != uid) {
		channel_close(c);
		return -EPERM;
	}
	return ret;
}

bool daemon_expected(const struct run *run)
{
	/* Process 1 listens: systemd holds the socket for a daemon that is being started. */
	return run->daemon.peer.pid == 1 || daemon_alive(run->socket);
}

void note_print(struct run *run, const char *text)
{
	if (run->notes++ < NOTES_MAX)
		say(text);
}

static bool copy_word(char to[static ID_BYTES], const char *word)
{
	size_t n = word ? len(word) : 0;

	if (!n || n >= ID_BYTES)
		return false;
	memcpy(to, word, n + 1);
	return true;
}

static bool has_flag(const char *flags, const char *flag)
{
	for (size_t n = len(flag); flags && *flags; flags++) {
		if (begins(flags, flag) && (flags[n] == ',' || !flags[n]))
			return true;
		while (*flags && *flags != ',')
			flags++;
		if (!*flags)
			break;
	}
	return false;
}

enum answer answer_parse_go(struct run *run, char *rest)
{
	char *call = next_word(&rest), *how = next_word(&rest);
	enum answer answer;

	if (!call || !how)
		return ANSWER_BROKEN;
	if (same(how, "none"))
		return ANSWER_NONE;
	if (!copy_word(run->call, call))
		return ANSWER_BROKEN;
	if (same(how, "clone"))
		answer = ANSWER_CLONE;
	else if (same(how, "move") && copy_word(run->token, next_word(&rest)))
		answer = ANSWER_MOVE;
	else
		return ANSWER_BROKEN;
	run->cmd.huge_pages = has_flag(next_word(&rest), "thp");
	return answer;
}

/* Waits for the answer to the request. With ANSWER_REFUSE, *code is the exit status. */
enum answer answer_await(struct run *run, int64_t start_ns, int64_t most_ms, int64_t *code)
{
	int64_t limit_ns = start_ns + FIRST_ANSWER_NS;
	bool patient = false;
	char *line;

	for (;;) {
		switch (channel_line(&run->daemon, &line, limit_ns)) {
		case CHANNEL_TIMEOUT:
			if (patient || !daemon_expected(run))
				return ANSWER_LATE;
			patient = true;
			limit_ns = start_ns + BUSY_ANSWER_NS;
			continue;
		case CHANNEL_LINE:
			break;
		default:
			return ANSWER_BROKEN;
		}
		if (begins(line, "ack ")) {
			int64_t admission_ms = number(line + len("ack "));

			if (admission_ms < 0)
				return ANSWER_BROKEN;
			if (most_ms >= 0 && most_ms < admission_ms)
				admission_ms = most_ms;
			patient = true;
			limit_ns = start_ns + admission_ms * NS_PER_MS;
		} else if (begins(line, "note ") && run->notes < NOTES_MAX) {
			note_print(run, line + len("note "));
		} else if (begins(line, "go ")) {
			return answer_parse_go(run, line + len("go "));
		} else if (begins(line, "refuse ")) {
			*code = number(line + len("refuse "));
			return *code > 0 && *code < 256 ? ANSWER_REFUSE : ANSWER_BROKEN;
		} else {
			return ANSWER_BROKEN;
		}
	}
}
