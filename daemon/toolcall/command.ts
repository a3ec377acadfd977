// SPDX-License-Identifier: Apache-2.0

/**
 * The command text in a shell's argument list: what follows `-c` (alone or among other letters, as in
 * `-lc CMD` and `-c -l CMD`), else the script with its arguments. Of a line that an agent has built around a
 * command, that command.
 */
export function commandOf(argv: readonly string[]): string {
  const args = argv.slice(1);
  let takesCommand = false;
  let index = 0;
  for (; index < args.length; index += 1) {
    const arg = args[index] ?? '';
    if (arg === '--' || arg === '-') {
      index += 1;
      break;
    }
    if (!/^[-+]/.test(arg)) break;
    if (arg.startsWith('--')) {
      if (arg === '--rcfile' || arg === '--init-file') index += 1;
      continue;
    }
    if (arg.startsWith('-') && arg.includes('c')) takesCommand = true;
    // Of the short options only -o and -O take a word of their own.
    if (/^[-+][a-zA-Z]*[oO]$/.test(arg)) index += 1;
  }
  const rest = args.slice(index);
  return takesCommand ? withoutSetUp(rest[0] ?? '') : rest.join(' ');
}

/** Where in Claude Code's line the agent's own command begins, and how its quote characters are written. */
const EVAL = " && eval '";
const QUOTE = `'"'"'`;

/**
 * Claude Code puts a command into a line that sets its shell up and notes where it ends up: `source … && eval
 * 'COMMAND' < /dev/null && pwd -P >| FILE`, without `< /dev/null` where COMMAND redirects its input. That is what
 * version 2.1.329 does (test/clients checks it) and documented nowhere; any other text is returned as it is.
 */
function withoutSetUp(line: string): string {
  if (!line.startsWith('source ')) return line;
  const start = line.indexOf(EVAL);
  // To the end: it is cut off where the line is longer than what the wrapper sends.
  const quoted = /'((?:[^']|'"'"')*)(?:'|$)/y;
  quoted.lastIndex = start + EVAL.length - 1;
  const command = start < 0 ? undefined : quoted.exec(line)?.[1];
  return command === undefined ? line : command.replaceAll(QUOTE, "'");
}

/** `AGENTRM_INTENT=…` as the first word, its value quoted or not, without anything that a shell would expand. */
const INTENT = /^\s*(?:export\s+)?AGENTRM_INTENT=(?:'([^']*)'|"([^"$`\\]*)"|([\w.=%/+-]+))(?=[\s;&]|$)/;

/**
 * The intent that a command begins with. An agent cannot set a variable of the wrapper, which is where an
 * intent comes from otherwise; it can only write what its line told it, `AGENTRM_INTENT="memory.max=2G" npm
 * test`, and the shell reads that when the limits are long set. Undefined: the command says nothing.
 */
export function intentOf(command: string): string | undefined {
  const match = INTENT.exec(command);
  return match === null ? undefined : (match[1] ?? match[2] ?? match[3]);
}
