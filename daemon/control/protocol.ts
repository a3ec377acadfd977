// SPDX-License-Identifier: Apache-2.0
import { fields, flag, isObject, list, type Of, oneOf, type Shape, text, whole } from '../shape.ts';

/**
 * What the wrapper and the daemon say to each other: the wrapper one JSON object a line (easy to
 * write in C), the daemon lines of words (easy to read in C).
 *
 * ```
 * run    → (ack MS)? note* (go CALL clone|move|none … | refuse CODE)
 * place  → placed | failed TEXT        (the child, on a connection of its own)
 * late   → nothing                     (a `go` came after the wrapper had started the command plainly)
 * adopt  → go CALL kept - | gone       (after a restart of the daemon)
 * end    → note* bye
 * feedback → note? bye                       (a hook of the agent, on a connection of its own)
 * ```
 */

/** The longest line that is accepted; a wrapper cuts the command to 16 KiB before it is escaped. */
export const MAX_LINE_BYTES = 64 * 1024;

const run = fields(
  { op: oneOf('run'), v: oneOf(1), argv: list(text(), 4096) },
  {
    cwd: text(),
    /** How many directories above cwd its repository begins. */
    top: whole(0, 64),
    intent: text(),
    session: text(),
    agent: text(),
    clone: flag,
  },
);

const end = fields({ op: oneOf('end') }, { code: whole(0, 255), signal: whole(1, 64) });

const place = fields({ op: oneOf('place'), v: oneOf(1), token: text() });
const feedback = fields({ op: oneOf('feedback'), v: oneOf(1), session: text(), command: text() });
const late = fields({ op: oneOf('late') });
const adopt = fields({ op: oneOf('adopt'), v: oneOf(1), call: text() });

export type RunMessage = Of<typeof run>;
export type EndMessage = Of<typeof end>;
export type WrapperMessage =
  | RunMessage
  | EndMessage
  | Of<typeof place>
  | Of<typeof feedback>
  | Of<typeof late>
  | Of<typeof adopt>;

const messages: ReadonlyMap<unknown, Shape<WrapperMessage>> = new Map<
  WrapperMessage['op'],
  Shape<WrapperMessage>
>([
  ['run', run],
  ['end', end],
  ['place', place],
  ['feedback', feedback],
  ['late', late],
  ['adopt', adopt],
]);

/** Decodes one line; undefined if it is not a message of the protocol. */
export function parseMessage(line: string): WrapperMessage | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  return isObject(value) ? messages.get(value.op)?.(value) : undefined;
}

/** Splits a stream into lines without ever holding more than one line's bound. */
export class LineReader {
  readonly #onLine: (line: string) => void;
  readonly #onOverflow: () => void;
  #rest = Buffer.alloc(0);

  constructor(onLine: (line: string) => void, onOverflow: () => void) {
    this.#onLine = onLine;
    this.#onOverflow = onOverflow;
  }

  push(chunk: Buffer): void {
    let data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    for (let end = data.indexOf(10); end >= 0; end = data.indexOf(10)) {
      if (end > MAX_LINE_BYTES) break;
      this.#onLine(data.toString('utf8', 0, end));
      data = data.subarray(end + 1);
    }
    if (data.length > MAX_LINE_BYTES) {
      this.#rest = Buffer.alloc(0);
      this.#onOverflow();
      return;
    }
    this.#rest = Buffer.from(data);
  }
}
