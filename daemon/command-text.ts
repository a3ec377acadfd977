// SPDX-License-Identifier: Apache-2.0

/** How much of a command's text may be kept: `firstWord` is the program's name, without its arguments. */
export const commandTexts = ['firstWord', 'full', 'none'] as const;
export type CommandText = (typeof commandTexts)[number];

/** What stands for a command whose program cannot be told without showing more than its name. */
const UNKNOWN = '?';

/** Characters that are looked at: assignments in front of a program are seldom longer. */
const MAX_SCANNED = 4096;

/** Characters of a program's name that are kept; the kernel itself keeps 15. */
const MAX_NAME = 64;

const space = /(?:[\s({!]|#[^\n]*\n)*/y;
/** `NAME=value ` with quotes; not with a substitution, whose end only a shell can find. */
const assignment =
  /[A-Za-z_]\w*(?:\[[^\]\s]*\])?\+?=(?:'[^']*'|"(?:[^"\\$`]|\\.|\$(?!\())*"|\\.|\$(?!\()|[^\s'"\\;&|<>()`$])*\s+/sy;
const program = /["']?([\w./+~-]+)(?=["'\s;&|<>()]|$)/y;

/**
 * Reduces the text of a shell command to what may be kept in logs, events and records. With
 * `firstWord` variable assignments in front of the program (`TOKEN=… curl`) and its directory are left
 * out, since they can hold secrets and user names; the result has none but printable ASCII characters.
 */
export function commandText(command: string, keep: CommandText): string {
  if (keep === 'full') return command;
  if (keep === 'none') return '';
  const text = command.slice(0, MAX_SCANNED);
  let at = 0;
  const skip = (pattern: RegExp): boolean => {
    pattern.lastIndex = at;
    if (!pattern.test(text)) return false;
    at = pattern.lastIndex;
    return true;
  };
  do skip(space);
  while (skip(assignment));
  program.lastIndex = at;
  const word = program.exec(text)?.[1];
  if (word === undefined) return UNKNOWN;
  return word.slice(word.lastIndexOf('/') + 1).slice(0, MAX_NAME) || UNKNOWN;
}
