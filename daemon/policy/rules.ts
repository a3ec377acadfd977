// SPDX-License-Identifier: Apache-2.0
import type { Intent } from '../toolcall/intent.ts';

/** What commands that match need. */
export interface Rule {
  /** A pattern of which only `*`, any text, is special. */
  readonly command: string;
  readonly intent: Intent;
}

/** A word goes on through these: `npm` is not found in `pnpm`, `a/npm` or `npm.js`. */
const WORD = /[\w./-]/;

/**
 * The first rule whose pattern occurs in the command, or null. Agents wrap a command in set-up of their
 * own (`source … && eval 'npm test'`), so a pattern may begin and end anywhere, but only where a word
 * does: `npm test` is found in `cd x && npm test --all`, not in `pnpm test`. The whole text is searched,
 * comments and quoted text too; a rule that is applied once too often costs nothing but other limits.
 */
export function matchRule(rules: readonly Rule[], command: string): Rule | null {
  return rules.find((rule) => matches(rule.command, command)) ?? null;
}

/**
 * Piece by piece, each at its first place behind the one before. That is enough: an earlier place only
 * leaves more text for the rest. So no text, however odd, makes it try combinations.
 */
function matches(pattern: string, text: string): boolean {
  const pieces = pattern.split('*');
  let from = 0;
  for (const [index, piece] of pieces.entries()) {
    const at = find(text, piece, from, index === 0, index === pieces.length - 1);
    if (at < 0) return false;
    from = at + piece.length;
  }
  return true;
}

function find(text: string, piece: string, from: number, first: boolean, last: boolean): number {
  // Nothing before or after a star: it takes the rest of the text with it.
  if (piece === '') return from;
  for (let at = text.indexOf(piece, from); at >= 0; at = text.indexOf(piece, at + 1)) {
    const end = at + piece.length;
    if (first && joins(text, at)) continue;
    if (last && joins(text, end)) continue;
    return at;
  }
  return -1;
}

/** Whether one word spans the place between two characters. */
function joins(text: string, at: number): boolean {
  return at > 0 && at < text.length && WORD.test(text.charAt(at - 1)) && WORD.test(text.charAt(at));
}
