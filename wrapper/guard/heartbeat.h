/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_HEARTBEAT_H
#define AGENTRM_HEARTBEAT_H

#include <stdint.h>

/* Nanoseconds of CLOCK_MONOTONIC, the clock of the heartbeat: it stands still while the machine sleeps. */
int64_t now_ns(void);

/*
 * When the daemon last beat, from the eight bytes of the file that it keeps;
 * 0 if there is no file, a shorter one, or a time yet to come.
 */
int64_t heartbeat_ns(const char *path);

#endif
