/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_TEXT_H
#define AGENTRM_TEXT_H

#include <stdbool.h>

#include "sys.h"

/* Text that is being written into a buffer; once it is full, `full` is set and the rest is dropped. */
struct text {
	char *at, *end;
	bool full;
};

/* Sets up `t` to write into the array `buf`. */
#define TEXT_IN(buf) ((struct text){ .at = (buf), .end = (buf) + sizeof(buf) })

void text_bytes(struct text *t, const char *s, size_t n);
void text_put(struct text *t, const char *s);
void text_number(struct text *t, int64_t n);

/*
 * Writes at most `max` bytes of `s` (n bytes long) as the inside of a JSON
 * string: quotes, backslashes and control bytes escaped, what is not UTF-8 as
 * U+FFFD. Returns false, with only whole characters written, if they did not
 * all fit into `max` or into the buffer.
 */
bool text_json(struct text *t, const char *s, size_t n, size_t max);

size_t len(const char *s);
bool same(const char *a, const char *b);
/* Does `s` begin with `prefix`? */
bool begins(const char *s, const char *prefix);
/* A decimal number of at most nine digits and nothing else; -1 if `s` is not one. */
int64_t number(const char *s);

/*
 * Cuts the next word off the line at *at: ends it with a NUL and moves *at
 * behind it. Words stand between single spaces. NULL at the end of the line.
 */
char *next_word(char **at);

#endif
