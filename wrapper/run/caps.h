/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_CAPS_H
#define AGENTRM_CAPS_H

#include <stdbool.h>

/*
 * CAP_DAC_OVERRIDE, with which a process may fork into a cgroup that is not its
 * own. Root has it. For others this program may carry it as a file capability
 * (cap_dac_override=p). It is then a security boundary: the capability is
 * effective during one clone3 only, and neither the command nor the rest of
 * this program's life ever has it.
 */
struct caps {
	bool from_file;
	bool can_clone;
};

/* Looks at this process. `from_file`: not root, and AT_SECURE of the auxiliary vector is set. */
struct caps caps_read(bool from_file);

/* Around clone3; these do nothing unless the capability came from the file. */
void caps_raise(const struct caps *caps);
/* From every set, for good. */
void caps_drop(const struct caps *caps);

#endif
