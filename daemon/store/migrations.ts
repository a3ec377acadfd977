// SPDX-License-Identifier: Apache-2.0

/**
 * The schema, one step a version: step N takes a file from `user_version` N to N + 1. A step that has
 * been released is never changed.
 *
 * A record is kept as its JSON text, which is what readers get: a new field needs no new step. What is
 * searched by has a column, but no index: the rows are few (`keepCalls`), and an index would slow every
 * write. `seq` is the order in which the calls ended.
 */
export const migrations: readonly string[] = [
  `CREATE TABLE calls (
     seq INTEGER PRIMARY KEY AUTOINCREMENT,
     id TEXT NOT NULL UNIQUE,
     session TEXT NOT NULL,
     uid INTEGER NOT NULL,
     record TEXT NOT NULL
   ) STRICT`,
  // `peaks`: [bytes, 1 if the run was cut short] of the newest runs, oldest first; `last`: seq of the last of them.
  `CREATE TABLE learned (
     id INTEGER PRIMARY KEY AUTOINCREMENT,
     uid INTEGER NOT NULL,
     repository TEXT NOT NULL,
     shape TEXT NOT NULL,
     last INTEGER NOT NULL,
     lastRunAt TEXT NOT NULL,
     peaks TEXT NOT NULL,
     UNIQUE (uid, repository, shape)
   ) STRICT`,
];
