/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_RUNTIME_H
#define AGENTRM_RUNTIME_H

#include <stdbool.h>

/* The files that the daemon keeps in the directory of its socket. */

/* Is the daemon alive, though perhaps busy? True if its main loop beat within 2 s. */
bool daemon_alive(const char *socket_path);

/* Has the administrator chosen that a call which cannot be managed must not run? */
bool fail_closed(const char *socket_path);

#endif
