// SPDX-License-Identifier: Apache-2.0
#include "json.h"

#include <string.h>

#include "../run/text.h"

/* Only the keys of the outer object and of those in it are looked at. */
#define LEVELS 2

static bool is(struct slice s, const char *word)
{
	return s.at && s.n == len(word) && memcmp(s.at, word, s.n) == 0;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void keep(struct slice *to, struct slice value)
{
	if (!to->at)
		*to = value;
}

struct hook_input hook_input_find(const char *json, size_t n)
{
	struct hook_input found = { 0 };
	struct slice key[LEVELS + 1] = { 0 };
	size_t level = 0;

	for (size_t i = 0; i < n; i++) {
		struct slice string;
		size_t next;

		if (json[i] == '{' || json[i] == '[') {
			if (++level <= LEVELS)
				key[level].at = NULL;
		} else if ((json[i] == '}' || json[i] == ']') && level) {
			level--;
		}
		if (json[i] != '"')
			continue;
		string.at = json + ++i;
		while (i < n && json[i] != '"')
			i += json[i] == '\\' ? 2 : 1;
		if (i >= n)
			break;
		string.n = (size_t)(json + i - string.at);
		next = i + 1;
		while (next < n && is_space(json[next]))
			next++;
		if (next < n && json[next] == ':') {
			if (level >= 1 && level <= LEVELS)
				key[level] = string;
		} else if (level == 1 && is(key[1], "session_id")) {
			keep(&found.session, string);
		} else if (level == 1 && is(key[1], "hook_event_name")) {
			keep(&found.event, string);
		} else if (level == 2 && is(key[1], "tool_input") && is(key[2], "command")) {
			keep(&found.command, string);
		}
	}
	return found;
}

struct slice json_cut(struct slice string, size_t max)
{
	size_t i = 0, step;

	if (string.n <= max)
		return string;
	for (;; i += step) {
		step = 1;
		if (string.at[i] == '\\')
			step = string.at[i + 1] == 'u' ? 6 : 2;
		else
			while (i + step < string.n && ((unsigned char)string.at[i + step] & 0xc0) == 0x80)
				step++;
		if (i + step > max)
			return (struct slice){ .at = string.at, .n = i };
	}
}
