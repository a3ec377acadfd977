// SPDX-License-Identifier: Apache-2.0

/** Where a value lies in the text that was scanned: from the first byte to the one after the last. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** Of a long list only the newest elements are of interest: a turn's end, with some results of parallel calls. */
const ELEMENTS_KEPT = 64;

/** So much of a string is looked at byte by byte; longer ones are left to a native search. */
const SHORT_STRING = 24;
/** Quotes that are closer together than this are looked for byte by byte, for as long as a window. */
const DENSE_BYTES = 64;
const DENSE_WINDOW = 512;
/** A piece of a string of this length without a space, an escape or a byte over 127 is no text. */
const OPAQUE_BYTES = 1024;
const OPAQUE_SAMPLE = 256;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const SPACE = 0x20;

/**
 * Finds the members of a JSON object, and the elements of those members that are lists, while its text is
 * still arriving: JSON.parse of 30 MB would stop everybody's streams for 37 ms, this costs 0.1 ms a piece of
 * 64 KiB. What is no JSON yields whatever it looks like; nothing is checked.
 */
export class JsonScan {
  readonly #members = new Map<string, Span>();
  readonly #elements = new Map<string, Span[]>();
  readonly #wanted: ReadonlySet<string>;
  #at = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;
  #expectKey = false;
  #key = '';
  #tokenStart = -1;
  #valueStart = -1;
  #elementStart = -1;
  #stringOpaque = false;
  /** Bytes in strings that are no text, such as images in base64. */
  opaqueBytes = 0;
  opaqueStrings = 0;

  /** @param wanted the members of interest; of others nothing is kept */
  constructor(wanted: ReadonlySet<string>) {
    this.#wanted = wanted;
  }

  member(name: string): Span | undefined {
    return this.#members.get(name);
  }

  /** The newest elements of a member that is a list, in order; empty for any other. */
  elements(name: string): readonly Span[] {
    return this.#elements.get(name) ?? [];
  }

  /** @param bytes all of the text so far; up to `end` it is looked at. What was looked at before must not have changed. */
  scan(bytes: Buffer, end: number): void {
    // What lies behind is not there yet, and would be searched all the same.
    const seen = bytes.subarray(0, end);
    let at = this.#at;
    // Fields of a class cost several times what a variable does, and this runs once a byte.
    let depth = this.#depth;
    while (at < end) {
      if (this.#inString) {
        this.#depth = depth;
        at = this.#string(seen, at);
        continue;
      }
      const byte = seen[at] as number;
      if (byte <= SPACE) {
        at += 1;
        continue;
      }
      if (depth <= 2) {
        this.#depth = depth;
        this.#shallow(byte, at);
        depth = this.#depth;
      } else if (byte === QUOTE) this.#inString = true;
      else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) depth += 1;
      else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) depth -= 1;
      at += 1;
    }
    this.#depth = depth;
    this.#at = at;
  }

  /** @param seen the bytes that may be looked at. @returns the place after the string's end, or theirs. */
  #string(seen: Buffer, from: number): number {
    const end = seen.length;
    let at = from;
    let window = SHORT_STRING;
    let escaped = this.#escaped;
    while (at < end) {
      const near = Math.min(end, at + window);
      while (at < near) {
        const byte = seen[at] as number;
        at += 1;
        if (escaped) escaped = false;
        else if (byte === BACKSLASH) escaped = true;
        else if (byte === QUOTE) return this.#stringEnded(seen, at);
      }
      if (at === end) break;
      const searched = at;
      const quote = seen.indexOf(QUOTE, at);
      const stop = quote < 0 ? end : quote;
      this.#measure(seen, at, stop);
      const backslashes = countBackslashes(seen, at, stop);
      // An escape that was open before this piece takes its first byte, unless there is none.
      const open = (escaped && backslashes === stop - at ? 1 : 0) + backslashes;
      escaped = open % 2 === 1;
      at = stop;
      if (stop === end) break;
      // Where quotes stand close together, a search for each costs more than looking at every byte.
      window = stop - searched < DENSE_BYTES ? DENSE_WINDOW : SHORT_STRING;
      at = stop + 1;
      if (!escaped) return this.#stringEnded(seen, at);
      escaped = false;
    }
    this.#escaped = escaped;
    return at;
  }

  #measure(bytes: Buffer, from: number, to: number): void {
    if (to - from < OPAQUE_BYTES) return;
    for (let at = from; at < from + OPAQUE_SAMPLE; at += 1) {
      const byte = bytes[at] as number;
      if (byte <= SPACE || byte === BACKSLASH || byte > 0x7f) return;
    }
    this.opaqueBytes += to - from;
    if (!this.#stringOpaque) this.opaqueStrings += 1;
    this.#stringOpaque = true;
  }

  #stringEnded(bytes: Buffer, after: number): number {
    this.#inString = false;
    this.#escaped = false;
    this.#stringOpaque = false;
    if (this.#depth === 1 && this.#expectKey) {
      this.#key = bytes.toString('utf8', this.#tokenStart + 1, after - 1);
      this.#expectKey = false;
    }
    return after;
  }

  /** A byte outside strings at a depth at which members or elements begin and end. */
  #shallow(byte: number, at: number): void {
    const closes = byte === CLOSE_BRACE || byte === CLOSE_BRACKET;
    if (this.#depth === 2 && this.#elementStart >= 0 && (byte === COMMA || closes)) this.#elementEnded(at);
    if (this.#depth === 1 && this.#valueStart >= 0 && (byte === COMMA || closes)) this.#memberEnded(at);
    if (closes) {
      this.#depth -= 1;
      return;
    }
    if (byte === COMMA) {
      if (this.#depth === 1) this.#expectKey = true;
      return;
    }
    if (byte === COLON) return;
    if (this.#depth === 1 && !this.#expectKey && this.#valueStart < 0) this.#valueStart = at;
    if (this.#depth === 2 && this.#elementStart < 0) this.#elementStart = at;
    if (byte === QUOTE) {
      this.#inString = true;
      this.#tokenStart = at;
    } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      this.#depth += 1;
      if (this.#depth === 1) this.#expectKey = byte === OPEN_BRACE;
      // Only of lists: the members of an inner object are not of interest.
      if (this.#depth === 2) this.#elementStart = -1;
      if (this.#depth === 2 && byte === OPEN_BRACKET && this.#wanted.has(this.#key)) {
        this.#elements.set(this.#key, []);
      }
    }
  }

  #elementEnded(end: number): void {
    const kept = this.#elements.get(this.#key);
    if (kept !== undefined) {
      kept.push({ start: this.#elementStart, end });
      if (kept.length > ELEMENTS_KEPT) kept.shift();
    }
    this.#elementStart = -1;
  }

  #memberEnded(end: number): void {
    if (this.#wanted.has(this.#key)) this.#members.set(this.#key, { start: this.#valueStart, end });
    this.#valueStart = -1;
  }
}

/** The backslashes directly before `to`. */
function countBackslashes(bytes: Buffer, from: number, to: number): number {
  let at = to;
  while (at > from && bytes[at - 1] === BACKSLASH) at -= 1;
  return to - at;
}
