// SPDX-License-Identifier: Apache-2.0

/** A word of a shell command. */
export interface Word {
  /** Its characters as far as they stand for themselves; without what is quoted, escaped or substituted. */
  readonly text: string;
  /** Whether that is the whole word. */
  readonly plain: boolean;
}

/** A text that is read from front to back. */
interface Cursor {
  readonly text: string;
  at: number;
}

const OPERATORS = new Set(['\n', ';', '&', '|', '(', ')']);
const REDIRECTION = /(?:&>>?|<<<|<<-?|<>|<&|>>|>\||>&|<(?!\()|>(?!\())/y;

/**
 * The simple commands of a shell text, each as its words, without redirections, comments and here-documents.
 * Nothing is expanded. It is not the whole grammar of a shell: keywords are words as any other, and from where
 * a quote, a substitution or a here-document has no end, nothing is returned, since from there on data could be
 * taken for words. The time taken is linear in the length of the text.
 */
export function simpleCommands(text: string): Word[][] {
  const cursor: Cursor = { text, at: 0 };
  const commands: Word[][] = [];
  const hereDocuments: { end: string; tabs: boolean }[] = [];
  let words: Word[] = [];
  let redirection: string | null = null;
  const endCommand = () => {
    if (words.length > 0) commands.push(words);
    words = [];
    redirection = null;
  };
  while (cursor.at < text.length) {
    const char = text.charAt(cursor.at);
    if (char === '\\' && text.charAt(cursor.at + 1) === '\n') {
      cursor.at += 2;
    } else if (char !== '\n' && /\s/.test(char)) {
      cursor.at += 1;
    } else if (char === '#') {
      const end = text.indexOf('\n', cursor.at);
      cursor.at = end < 0 ? text.length : end;
    } else if (match(REDIRECTION, cursor)) {
      redirection = text.slice(cursor.at, REDIRECTION.lastIndex);
      cursor.at = REDIRECTION.lastIndex;
    } else if (words[0]?.text === '[[' && words.at(-1)?.text !== ']]' && OPERATORS.has(char)) {
      // Operators of the condition, between words that are no programs.
      cursor.at += 1;
    } else if (words.length === 0 && text.startsWith('((', cursor.at)) {
      const end = skipParentheses(text, cursor.at);
      if (end < 0) break;
      cursor.at = end;
    } else if (OPERATORS.has(char)) {
      endCommand();
      cursor.at += 1;
      if (char === '\n' && !skipHereDocuments(cursor, hereDocuments)) break;
    } else {
      const start = cursor.at;
      const word = readWord(cursor);
      if (word === null) break;
      if (redirection !== null) {
        if (redirection.startsWith('<<') && redirection !== '<<<') {
          const end = text.slice(start, cursor.at).replace(/['"\\]/g, '');
          hereDocuments.push({ end, tabs: redirection === '<<-' });
        }
        redirection = null;
      } else if (!(isNumber(word) && match(REDIRECTION, cursor))) {
        words.push(word);
      }
    }
  }
  endCommand();
  return commands;
}

function match(pattern: RegExp, { text, at }: Cursor): boolean {
  pattern.lastIndex = at;
  return pattern.test(text);
}

/** The descriptor in front of a redirection: `2>`. */
function isNumber(word: Word): boolean {
  return word.plain && /^\d+$/.test(word.text);
}

/** Null: it has no end. */
function readWord(cursor: Cursor): Word | null {
  const { text } = cursor;
  let literal = '';
  let plain = true;
  while (cursor.at < text.length) {
    const char = text.charAt(cursor.at);
    if (/[\s;&|)]/.test(char)) break;
    // A `(` within a word is that of an array, a function or a pattern.
    if (char === '(' || char === '<' || char === '>') {
      if (char !== '(' && text.charAt(cursor.at + 1) !== '(') break;
      if (literal === '' && plain && char === '(') break;
      cursor.at = skipParentheses(text, text.indexOf('(', cursor.at));
      plain = false;
    } else if (char === '\\') {
      if (text.charAt(cursor.at + 1) !== '\n') plain = false;
      cursor.at += 2;
    } else if (char === "'" || char === '"' || char === '`') {
      cursor.at = skipQuoted(text, cursor.at);
      plain = false;
    } else if (char === '$') {
      cursor.at = skipExpansion(text, cursor.at);
      plain = false;
    } else {
      literal += char;
      cursor.at += 1;
    }
    if (cursor.at < 0) {
      cursor.at = text.length;
      return null;
    }
  }
  return { text: literal, plain };
}

/** @returns where what begins with the quote character at `at` is over, or -1. */
function skipQuoted(text: string, at: number): number {
  const quote = text.charAt(at);
  for (let index = at + 1; index < text.length; index += 1) {
    const char = text.charAt(index);
    if (char === quote) return index + 1;
    if (quote === "'") continue;
    if (char === '\\') index += 1;
    else if (quote === '"' && char === '$' && text.charAt(index + 1) === '(') {
      const end = skipParentheses(text, index + 1);
      if (end < 0) return -1;
      index = end - 1;
    }
  }
  return -1;
}

/** @returns where the substitution or variable at `at` is over, or -1. */
function skipExpansion(text: string, at: number): number {
  const next = text.charAt(at + 1);
  if (next === '(') return skipParentheses(text, at + 1);
  if (next === "'" || next === '"') return skipQuoted(text, at + 1);
  if (next === '{') {
    const end = text.indexOf('}', at);
    return end < 0 ? -1 : end + 1;
  }
  const name = /\$(?:\w+|.)?/sy;
  name.lastIndex = at;
  name.test(text);
  return name.lastIndex;
}

/** A here-document, or the patterns of `case`. */
const DATA_WITHIN = /^(?:<<[^<]|case\s)/;

/** @returns where the parenthesis at `at` is closed, or -1, also if only a shell could tell. */
function skipParentheses(text: string, at: number): number {
  let depth = 0;
  for (let index = at; index < text.length; index += 1) {
    const char = text.charAt(index);
    if (char === '(') depth += 1;
    else if (char === ')') depth -= 1;
    else if (char === '\\') index += 1;
    // Parentheses and quotes in there need not have a partner.
    else if (DATA_WITHIN.test(text.slice(index, index + 5))) return -1;
    else if (char === "'" || char === '"' || char === '`') {
      // Without looking at parentheses in it again: the time must not grow with the depth.
      const end = char === '"' ? skipPlainQuoted(text, index) : skipQuoted(text, index);
      if (end < 0) return -1;
      index = end - 1;
    }
    if (depth === 0) return index + 1;
  }
  return -1;
}

function skipPlainQuoted(text: string, at: number): number {
  for (let index = at + 1; index < text.length; index += 1) {
    if (text.charAt(index) === '"') return index + 1;
    if (text.charAt(index) === '\\') index += 1;
  }
  return -1;
}

/** From the line after an operator; false if one has no end. */
function skipHereDocuments(cursor: Cursor, pending: { end: string; tabs: boolean }[]): boolean {
  for (const { end, tabs } of pending.splice(0)) {
    for (;;) {
      if (cursor.at >= cursor.text.length) return false;
      const newline = cursor.text.indexOf('\n', cursor.at);
      const stop = newline < 0 ? cursor.text.length : newline;
      const line = cursor.text.slice(cursor.at, stop);
      cursor.at = stop + 1;
      if ((tabs ? line.replace(/^\t+/, '') : line) === end) break;
    }
  }
  return true;
}
