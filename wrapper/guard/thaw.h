/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_THAW_H
#define AGENTRM_THAW_H

#include "stops.h"

/*
 * Thaws every cgroup from `root` down, and continues those of their tasks that
 * `stops` lists. What has gone away meanwhile is passed over; a root that cannot
 * be opened is none. Returns the number of tasks continued.
 */
int thaw_tree(const char *root, const struct stops *stops);

#endif
