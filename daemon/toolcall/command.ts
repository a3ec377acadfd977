// SPDX-License-Identifier: Apache-2.0

/**
 * The command text in a shell's argument list: what follows `-c` (alone or among other letters, as in
 * `-lc CMD` and `-c -l CMD`), else the script with its arguments.
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
  return takesCommand ? (rest[0] ?? '') : rest.join(' ');
}
