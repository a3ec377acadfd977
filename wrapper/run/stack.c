// SPDX-License-Identifier: Apache-2.0
#include "stack.h"

#include <linux/resource.h>

#include "sys.h"

void stack_limit_give_back(void)
{
	struct rlimit64 own, parent;

	/* Lower than that, it was lower before. */
	if (SYS4(prlimit64, 0, RLIMIT_STACK, NULL, &own) < 0 || own.rlim_cur != _STK_LIM)
		return;
	/* Refused if the parent is another user's. */
	if (SYS4(prlimit64, SYS0(getppid), RLIMIT_STACK, NULL, &parent) < 0 || parent.rlim_cur <= _STK_LIM)
		return;
	own.rlim_cur = parent.rlim_cur < own.rlim_max ? parent.rlim_cur : own.rlim_max;
	SYS4(prlimit64, 0, RLIMIT_STACK, &own, NULL);
}
