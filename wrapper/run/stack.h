/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_STACK_H
#define AGENTRM_STACK_H

/*
 * For a program that has gained a capability from its file: the kernel lowers
 * the soft limit of its stack to 8 MiB, and so that of the command. Nothing says
 * what it was; what the parent has is as good as always the same.
 */
void stack_limit_give_back(void);

#endif
