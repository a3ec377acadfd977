// SPDX-License-Identifier: Apache-2.0
#include "text.h"

#include <string.h>

void text_bytes(struct text *t, const char *s, size_t n)
{
	if (t->full || n > (size_t)(t->end - t->at)) {
		t->full = true;
		return;
	}
	memcpy(t->at, s, n);
	t->at += n;
}

void text_put(struct text *t, const char *s)
{
	text_bytes(t, s, len(s));
}

void text_number(struct text *t, int64_t n)
{
	uint64_t rest = n < 0 ? -(uint64_t)n : (uint64_t)n;
	char digits[20];
	size_t i = sizeof(digits);

	do {
		digits[--i] = (char)('0' + rest % 10);
		rest /= 10;
	} while (rest);
	if (n < 0)
		text_put(t, "-");
	text_bytes(t, digits + i, sizeof(digits) - i);
}

/* The length of the UTF-8 character at `s`, 0 if there is none (Unicode 15, table 3-7). */
static size_t utf8_length(const unsigned char *s, size_t n)
{
	size_t length;
	unsigned char low = 0x80, high = 0xbf;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		length = 2;
	else if (s[0] >= 0xe0 && s[0] <= 0xef)
		length = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		length = 4;
	else
		return 0;
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (length > n || s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < length; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return length;
}

bool text_json(struct text *t, const char *s, size_t n, size_t max)
{
	const char *stop = (size_t)(t->end - t->at) < max ? t->end : t->at + max;

	for (size_t i = 0, step; i < n; i += step) {
		const char *from = s + i;
		char escape[6] = { '\\', 'u', '0', '0', 0, 0 };
		unsigned char c = (unsigned char)*from;
		size_t wrote;

		step = wrote = utf8_length((const unsigned char *)from, n - i);
		if (!step) {
			step = 1;
			wrote = 3;
			from = "\xef\xbf\xbd";
		} else if (c == '"' || c == '\\') {
			escape[1] = (char)c;
			wrote = 2;
			from = escape;
		} else if (c < 0x20 || c == 0x7f) {
			escape[4] = "0123456789abcdef"[c >> 4];
			escape[5] = "0123456789abcdef"[c & 15];
			wrote = 6;
			from = escape;
		}
		if (t->full || wrote > (size_t)(stop - t->at))
			return false;
		text_bytes(t, from, wrote);
	}
	return true;
}

size_t len(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

bool same(const char *a, const char *b)
{
	size_t n = len(a);

	return n == len(b) && memcmp(a, b, n) == 0;
}

bool begins(const char *s, const char *prefix)
{
	while (*prefix)
		if (*s++ != *prefix++)
			return false;
	return true;
}

int64_t number(const char *s)
{
	int64_t n = 0;
	size_t digits = 0;

	for (; s[digits] >= '0' && s[digits] <= '9'; digits++) {
		if (digits == 9)
			return -1;
		n = n * 10 + s[digits] - '0';
	}
	return digits && !s[digits] ? n : -1;
}

char *next_word(char **at)
{
	char *word = *at, *p = word;

	if (!*word)
		return NULL;
	while (*p && *p != ' ')
		p++;
	if (*p)
		*p++ = '\0';
	*at = p;
	return word;
}
