/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_NOTIFY_H
#define AGENTRM_NOTIFY_H

/* Tells a service manager that waits for it (NOTIFY_SOCKET, sd_notify(3)) that the guard watches. */
void notify_ready(void);

#endif
