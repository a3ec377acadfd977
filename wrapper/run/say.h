/* SPDX-License-Identifier: Apache-2.0 */
#ifndef AGENTRM_SAY_H
#define AGENTRM_SAY_H

/*
 * Writes the parts, up to a NULL, as one line to stderr; in a file it begins a
 * line, whatever stands before it. Control bytes become '?', so that neither a
 * path nor a daemon can talk to the terminal. A stderr that is closed or that
 * nobody reads costs the line, never the call.
 */
void say_parts(const char *const *parts);

#define say(...) say_parts((const char *const[]){ __VA_ARGS__, 0 })

#endif
