// SPDX-License-Identifier: Apache-2.0
#include "request.h"

#include <asm/stat.h>
#include <linux/fcntl.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>

/*
 * What may be sent of each. Rules match the first words of a command, so its
 * tail may be cut; an intent may not (it would mean something else), so a cut
 * one gets a marker that makes the daemon report it as bad. In the request each
 * byte can take up to six, hence the bounds on what is written as well; they
 * and the keys stay below REQUEST_BYTES together.
 */
#define ARGV_BYTES 16384
#define ARGV_WORDS 1024
#define ARGV_WRITTEN 40960
#define INTENT_BYTES 4096
#define INTENT_WRITTEN 8192
#define CWD_WRITTEN 8192
/* Deeper than people nest directories, and some 30 us in the kernel at worst. */
#define REPOSITORY_UP 32
#define NAME_BYTES 256
#define NAME_WRITTEN 1024

static void put_argv(struct text *t, char **argv)
{
	const char *stop = t->at + ARGV_WRITTEN;
	size_t left = ARGV_BYTES;

	text_put(t, "\"argv\":[");
	for (char **arg = argv; *arg && arg - argv < ARGV_WORDS && left && stop - t->at > 8; arg++) {
		size_t n = len(*arg);

		if (n > left)
			n = left;
		text_put(t, arg == argv ? "\"" : ",\"");
		text_json(t, *arg, n, (size_t)(stop - t->at));
		text_put(t, "\"");
		left -= n;
	}
	text_put(t, "]");
}

static void put_name(struct text *t, const char *key, const char *value)
{
	size_t n;

	if (!value)
		return;
	n = len(value);
	text_put(t, ",\"");
	text_put(t, key);
	text_put(t, "\":\"");
	text_json(t, value, n < NAME_BYTES ? n : NAME_BYTES, NAME_WRITTEN);
	text_put(t, "\"");
}

static void put_intent(struct text *t, const char *intent)
{
	size_t n;

	if (!intent)
		return;
	n = len(intent);
	text_put(t, ",\"intent\":\"");
	if (!text_json(t, intent, n < INTENT_BYTES ? n : INTENT_BYTES, INTENT_WRITTEN) || n > INTENT_BYTES)
		text_put(t, " (cut)");
	text_put(t, "\"");
}

/*
 * How many directories above cwd the work tree of a repository begins: where
 * `.git` is, a directory or, in a linked work tree, a file. -1 if there is none.
 * Looked for here and not by the daemon: what root does in somebody's tree can
 * be made to hang, and here only who would hang anyway does.
 */
static int repository_above(const char *cwd)
{
	char path[PATH_MAX + sizeof("/.git")];
	struct stat st;
	size_t end = len(cwd);

	memcpy(path, cwd, end);
	for (int up = 0; up <= REPOSITORY_UP && end > 1; up++) {
		memcpy(path + end, "/.git", sizeof("/.git"));
		/* Above it may be a directory in which to look for a name is to mount it. */
		if (SYS4(newfstatat, AT_FDCWD, path, &st, AT_NO_AUTOMOUNT) == 0)
			return up;
		while (path[--end] != '/')
			;
	}
	return -1;
}

/* Left out if it is gone, unreachable or too long: half a path would name another directory. */
static void put_cwd(struct text *t)
{
	struct text before = *t;
	char cwd[PATH_MAX];
	int up;

	if (SYS2(getcwd, cwd, sizeof(cwd)) <= 0 || cwd[0] != '/')
		return;
	text_put(t, ",\"cwd\":\"");
	if (!text_json(t, cwd, len(cwd), CWD_WRITTEN)) {
		*t = before;
		return;
	}
	text_put(t, "\"");
	up = repository_above(cwd);
	if (up >= 0) {
		text_put(t, ",\"top\":");
		text_number(t, up);
	}
}

void request_run(struct text *t, char **argv, const struct env *env, bool clone)
{
	text_put(t, "{\"op\":\"run\",\"v\":1,");
	put_argv(t, argv);
	put_cwd(t);
	put_intent(t, env->intent);
	put_name(t, "session", env->session);
	put_name(t, "agent", env->agent);
	text_put(t, clone ? ",\"clone\":true}\n" : ",\"clone\":false}\n");
}

void request_place(struct text *t, const char *token)
{
	text_put(t, "{\"op\":\"place\",\"v\":1,\"token\":\"");
	text_json(t, token, len(token), NAME_WRITTEN);
	text_put(t, "\"}\n");
}

void request_adopt(struct text *t, const char *call)
{
	text_put(t, "{\"op\":\"adopt\",\"v\":1,\"call\":\"");
	text_json(t, call, len(call), NAME_WRITTEN);
	text_put(t, "\"}\n");
}

void request_late(struct text *t)
{
	text_put(t, "{\"op\":\"late\"}\n");
}

static void put_ms(struct text *t, const char *key, const struct timeval *time)
{
	text_put(t, key);
	text_number(t, time->tv_sec * 1000 + time->tv_usec / 1000);
}

void request_end(struct text *t, int status, const struct rusage *usage)
{
	text_put(t, WIFSIGNALED(status) ? "{\"op\":\"end\",\"signal\":" : "{\"op\":\"end\",\"code\":");
	text_number(t, WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	put_ms(t, ",\"utimeMs\":", &usage->ru_utime);
	put_ms(t, ",\"stimeMs\":", &usage->ru_stime);
	text_put(t, "}\n");
}
