/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_CLOCK_H
#define AGENTRM_CLOCK_H

#include <time.h>

#include "sys.h"

#define NS_PER_MS 1000000LL

/* Nanoseconds of CLOCK_MONOTONIC: every bound here is on that clock, so that none moves with the date. */
static inline int64_t now_ns(void)
{
	struct timespec t;

	SYS2(clock_gettime, CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 * NS_PER_MS + t.tv_nsec;
}

/* What is left until `deadline_ns`, never negative, as ppoll takes it. */
static inline struct timespec time_left(int64_t deadline_ns)
{
	int64_t left = deadline_ns - now_ns();

	if (left < 0)
		left = 0;
	return (struct timespec){ .tv_sec = left / (1000 * NS_PER_MS), .tv_nsec = left % (1000 * NS_PER_MS) };
}

static inline void sleep_ns(int64_t ns)
{
	/* Made for each sleep: the kernel writes what is left of it back. */
	struct timespec left = { .tv_sec = ns / (1000 * NS_PER_MS), .tv_nsec = ns % (1000 * NS_PER_MS) };

	SYS5(ppoll, NULL, 0, &left, NULL, 0);
}

#endif
