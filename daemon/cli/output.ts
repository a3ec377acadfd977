// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { styleText } from 'node:util';
import { exit } from './exit.ts';

/** A reader that has had enough (`| head`) ends the command quietly; any other failure is told. */
export function watchOutput(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(exit.ok);
    process.stderr.write(`agentrm: write: ${error.message}\n`);
    process.exit(exit.failed);
  });
}

/** Writes a line to standard output, no faster than it is read. */
export async function print(line: string): Promise<void> {
  if (!process.stdout.write(`${line}\n`)) await once(process.stdout, 'drain');
}

/** Characters that a terminal acts on, or that turn the direction of text: agents' commands have them too. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** Text from a daemon or an agent as it may go to a terminal, on one line. */
export function plain(text: string): string {
  return text.replace(/[\t\n\r]+/g, ' ').replace(UNPRINTABLE, '?');
}

/** One line of JSON; what a terminal would act on is escaped, which changes nothing for a reader of JSON. */
export function jsonLine(value: unknown): string {
  return safeJson(JSON.stringify(value));
}

/** {@link jsonLine} for what is JSON already. */
export function safeJson(text: string): string {
  return text.replace(UNPRINTABLE, (character) =>
    character
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  );
}

export type Style = Parameters<typeof styleText>[0];

export interface Cell {
  readonly text: string;
  readonly style?: Style | undefined;
}

export interface Column {
  readonly title: string;
  readonly align?: 'right';
  /** Never narrower; for rows that come one by one. */
  readonly width?: number;
}

export interface TableOptions {
  /** Begin with the titles of the columns; default true. */
  readonly titles?: boolean;
  /** Cut lines to the width of the terminal, so that a row stays a row; default true. */
  readonly cut?: boolean;
}

/**
 * Aligned rows, two spaces between columns. On a terminal with colours, unless NO_COLOR is set;
 * elsewhere neither coloured nor cut.
 */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  { titles = true, cut = true }: TableOptions = {},
): string[] {
  const widths = columns.map(({ title, width = 0 }, index) =>
    Math.max(titles ? title.length : 0, width, ...rows.map((row) => row[index]?.text.length ?? 0)),
  );
  const room = cut && process.stdout.isTTY ? process.stdout.columns : Number.POSITIVE_INFINITY;
  const line = (cells: readonly Cell[]): string => {
    let used = 0;
    const parts = cells.map(({ text, style }, index) => {
      const width = widths[index] ?? 0;
      const last = index === columns.length - 1;
      const padded = columns[index]?.align ? text.padStart(width) : last ? text : text.padEnd(width);
      const shown = padded.slice(0, Math.max(0, room - used));
      used += padded.length + 2;
      return style === undefined ? shown : styleText(style, shown);
    });
    return parts.join('  ').trimEnd();
  };
  const body = rows.map(line);
  return titles ? [line(columns.map(({ title }) => ({ text: title, style: 'dim' }))), ...body] : body;
}
