// SPDX-License-Identifier: Apache-2.0

/** More than this without an end of an event is passed on as it is: it is no event stream, or an enormous event. */
const MAX_HELD_BYTES = 256 * 1024;

const LF = 0x0a;
const NOTHING = Buffer.alloc(0);
/** Blank lines after a line, with the three ends that a line may have. */
const BOUNDARIES = ['\n\n', '\n\r\n', '\r\r', '\r\n\n'].map((text) => Buffer.from(text));

/**
 * Passes the bytes of an event stream on in whole events. A client cannot use a part of one, so it loses
 * no time; but if the upstream breaks off within an event, an error event can follow that the client
 * understands, and what consists of keep-alives alone can be told from what does not.
 */
export class EventFrames {
  #held: Buffer = NOTHING;
  #torn = false;

  /** Whether part of an event has been passed on, so that nothing can follow but the rest of it. */
  get torn(): boolean {
    return this.#torn;
  }

  /** @returns what can be passed on now; may be empty. */
  push(chunk: Buffer): Buffer {
    if (this.#held.length === 0 && !this.#torn && endsEvent(chunk)) return chunk;
    const bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    const end = lastBoundary(bytes);
    if (end === 0 && (this.#torn || bytes.length > MAX_HELD_BYTES)) {
      this.#torn = true;
      this.#held = NOTHING;
      return bytes;
    }
    if (end > 0) this.#torn = false;
    this.#held = bytes.subarray(end);
    return bytes.subarray(0, end);
  }

  /** What is left when the stream has ended. */
  rest(): Buffer {
    const rest = this.#held;
    this.#held = NOTHING;
    return rest;
  }
}

function endsEvent(bytes: Buffer): boolean {
  const last = bytes[bytes.length - 1];
  return last === LF && bytes[bytes.length - 2] === LF;
}

/** The place after the last blank line that ends an event; 0: there is none. */
function lastBoundary(bytes: Buffer): number {
  let end = 0;
  for (const boundary of BOUNDARIES) {
    const at = bytes.lastIndexOf(boundary);
    if (at >= 0) end = Math.max(end, at + boundary.length);
  }
  return end;
}
