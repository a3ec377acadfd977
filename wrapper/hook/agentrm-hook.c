// SPDX-License-Identifier: Apache-2.0
/*
 * A hook of Claude Code for PostToolUse and PostToolUseFailure: reads what is
 * said of the tool call on stdin, asks the daemon what there is to tell of it and
 * prints that for the model, unless the tool's output has it already. It runs
 * after every tool call, hence no script: nothing but this program is started.
 * Whatever goes wrong, it says nothing and ends with 0.
 */
#include <errno.h>
#include <string.h>

#include "../run/env.h"
#include "../run/run.h"
#include "../run/text.h"
#include "json.h"

#define SYSTEM_SOCKET "/run/agentrm/agentrm.sock"
#define USER_SOCKET "/agentrm/agentrm.sock"

/* More than Claude Code passes on of a tool's output (30,000 characters, six bytes each at worst), several times. */
#define INPUT_BYTES (1024 * 1024)
/* The daemon compares 4096 characters; each takes up to six bytes. */
#define COMMAND_BYTES 25000
#define SESSION_BYTES 1024
/* A daemon that hangs must not make every tool call slow. */
#define ANSWER_NS (500 * NS_PER_MS)

static char input[INPUT_BYTES];

/* Reads to the end, also what there is no room for: the writer is not to find its pipe broken. */
static size_t read_input(void)
{
	static char rest[4096];
	size_t n = 0;

	for (;;) {
		bool room = n < sizeof(input);
		long ret = SYS3(read, 0, room ? input + n : rest, room ? sizeof(input) - n : sizeof(rest));

		if (ret == -EINTR)
			continue;
		if (ret <= 0)
			return n;
		if (room)
			n += (size_t)ret;
	}
}

static bool connect_daemon(struct channel *c, const struct env *env, int64_t deadline_ns)
{
	static char path[108];
	struct text t = { .at = path, .end = path + sizeof(path) - 1 };
	uint32_t uid = (uint32_t)SYS0(getuid);

	if (env->socket)
		return daemon_connect(c, env->socket, uid, deadline_ns) == 0;
	if (daemon_connect(c, SYSTEM_SOCKET, uid, deadline_ns) == 0)
		return true;
	if (!env->runtime_dir)
		return false;
	text_put(&t, env->runtime_dir);
	text_put(&t, USER_SOCKET);
	return !t.full && daemon_connect(c, path, uid, deadline_ns) == 0;
}

/* The strings go on as they came, escaped. */
static bool ask(struct channel *c, const struct hook_input *in, int64_t deadline_ns)
{
	static char line[COMMAND_BYTES + SESSION_BYTES + 128];
	struct text t = TEXT_IN(line);
	struct slice command = json_cut(in->command, COMMAND_BYTES);

	text_put(&t, "{\"op\":\"feedback\",\"v\":1,\"session\":\"");
	text_bytes(&t, in->session.at, in->session.n);
	text_put(&t, "\",\"command\":\"");
	text_bytes(&t, command.at, command.n);
	text_put(&t, "\"}\n");
	return !t.full && channel_send(c, line, (size_t)(t.at - line), deadline_ns);
}

static bool contains(const char *text, size_t n, struct slice part)
{
	for (size_t i = 0; i + part.n <= n; i++)
		if (text[i] == *part.at && memcmp(text + i, part.at, part.n) == 0)
			return true;
	return false;
}

static void tell(const struct hook_input *in, const char *note, size_t n)
{
	static char out[2 * CHANNEL_LINE_BYTES];
	struct text t = TEXT_IN(out);
	struct slice said;
	char *at = out;

	text_put(&t, "{\"hookSpecificOutput\":{\"hookEventName\":\"");
	if (in->event.at)
		text_bytes(&t, in->event.at, in->event.n);
	else
		text_put(&t, "PostToolUse");
	text_put(&t, "\",\"additionalContext\":\"");
	said.at = t.at;
	if (!text_json(&t, note, len(note), CHANNEL_LINE_BYTES))
		return;
	said.n = (size_t)(t.at - said.at);
	/* The wrapper has said it on stderr, and the model reads it there, unless the output was too long. */
	if (contains(input, n, said))
		return;
	text_put(&t, "\"}}\n");
	while (!t.full && at < t.at) {
		long ret = SYS3(write, 1, at, t.at - at);

		if (ret <= 0 && ret != -EINTR)
			return;
		if (ret > 0)
			at += ret;
	}
}

int main(int argc, char **argv, char **envp)
{
	static struct channel c;
	char underscore[16];
	struct env env = env_read(envp, "agentrm-hook", underscore, sizeof(underscore));
	size_t n = read_input();
	struct hook_input in = hook_input_find(input, n);
	int64_t deadline_ns = now_ns() + ANSWER_NS;
	char *line;

	(void)argc;
	(void)argv;
	if (!in.session.at || !in.command.at || !connect_daemon(&c, &env, deadline_ns))
		return 0;
	if (ask(&c, &in, deadline_ns) && channel_line(&c, &line, deadline_ns) == CHANNEL_LINE &&
	    begins(line, "note "))
		tell(&in, line + len("note "), n);
	return 0;
}
