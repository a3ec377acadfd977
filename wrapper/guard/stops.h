/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_STOPS_H
#define AGENTRM_STOPS_H

#include <stdbool.h>

/* As many as the map holds (AGENTRM_MAX_STOPS). */
#define STOPS_MAX 16384

/* Processes that were stopped on the kernel program's account, from its pinned map. */
struct stops {
	int count;
	int tgids[STOPS_MAX];
};

/*
 * Reads the map below `pins`; no entries if it is not there (no BPF, or none
 * yet) or not of the ABI that this program was built for.
 */
void stops_read(struct stops *stops, const char *pins);

bool stops_contain(const struct stops *stops, int tgid);

#endif
