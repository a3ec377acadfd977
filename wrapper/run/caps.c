// SPDX-License-Identifier: Apache-2.0
#include "caps.h"

#include <linux/capability.h>
#include <sys/prctl.h>

#include "sys.h"

#define DAC_OVERRIDE CAP_TO_MASK(CAP_DAC_OVERRIDE)

static long get(struct __user_cap_data_struct data[2])
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };

	return SYS2(capget, &head, data);
}

static void set(const struct __user_cap_data_struct data[2])
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };

	SYS2(capset, &head, data);
}

struct caps caps_read(bool from_file)
{
	struct __user_cap_data_struct data[2] = { 0 };
	struct caps caps = { .from_file = from_file };

	if (get(data) == 0)
		caps.can_clone = (from_file ? data[0].permitted : data[0].effective) & DAC_OVERRIDE;
	return caps;
}

void caps_raise(const struct caps *caps)
{
	struct __user_cap_data_struct data[2] = { 0 };

	if (!caps->from_file || !caps->can_clone || get(data) < 0)
		return;
	data[0].effective |= DAC_OVERRIDE;
	set(data);
}

void caps_drop(const struct caps *caps)
{
	struct __user_cap_data_struct data[2] = { 0 };

	if (!caps->from_file)
		return;
	/* Inheritable is the caller's own; without a permitted set it gives nothing. */
	get(data);
	data[0].effective = data[0].permitted = 0;
	data[1].effective = data[1].permitted = 0;
	set(data);
	SYS5(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}
