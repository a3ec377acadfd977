/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_JSON_H
#define AGENTRM_JSON_H

#include "../run/sys.h"

/* A part of the text that is looked at; at is NULL if there is none. */
struct slice {
	const char *at;
	size_t n;
};

/* What is wanted of the input of a hook, each the inside of a JSON string as it stands there, escapes and all. */
struct hook_input {
	struct slice session; /* session_id */
	struct slice event; /* hook_event_name */
	struct slice command; /* tool_input.command */
};

/*
 * Finds these in the JSON text. What it cannot make sense of, such as text that
 * is cut off, only leaves them out; it reads nothing beyond `n` bytes.
 */
struct hook_input hook_input_find(const char *json, size_t n);

/* The longest beginning of the inside of a JSON string that has at most `max` bytes and splits no character. */
struct slice json_cut(struct slice string, size_t max);

#endif
