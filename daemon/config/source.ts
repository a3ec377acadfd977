// SPDX-License-Identifier: Apache-2.0
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { isMap, isScalar, isSeq, LineCounter, type Node, type ParsedNode, parseDocument, visit } from 'yaml';
import { errnoOf, messageOf } from '../errors.ts';
import { quoteWord } from '../toolcall/intent.ts';

/** One thing that is wrong with the configuration, and where. */
export interface Problem {
  /** A file, or the variable or option that the value came from. */
  readonly source: string;
  /** From 1; absent if the problem is not at a place in a file. */
  readonly line?: number;
  readonly column?: number;
  /** The setting, such as `admission.wait`; empty for the whole source. */
  readonly path: string;
  readonly message: string;
}

export type Path = readonly PropertyKey[];

/** One place that settings come from: their values as text, and where each of them is. */
export interface Source {
  readonly name: string;
  readonly values: Readonly<Record<string, unknown>>;
  /** Of a setting that is itself wrong, the place is its key; else it is that of its value. */
  readonly problemAt: (path: Path, message: string, wrong: 'key' | 'value') => Problem;
}

/** Thousands of rules; a larger file is another file, given by mistake, and YAML takes its time with it. */
const MAX_FILE_BYTES = 256 * 1024;
/** One slip in the indentation can make an error of every line after it; the first ones tell. */
const MAX_SYNTAX_PROBLEMS = 10;
/** Messages of the YAML reader quote the file, of which one line may be all there is. */
const MAX_MESSAGE = 200;

/** `file:line:column: path: message`, less what is not known. */
export function formatProblem({ source, line, column, path, message }: Problem): string {
  const place = line === undefined ? [] : [line, column];
  return [[source, ...place].join(':'), ...(path === '' ? [] : [path]), message].join(': ');
}

/**
 * Reads a YAML file. Its scalars stay text, whatever they look like, so that every value is judged by
 * the grammar of its setting alone; a key with nothing behind it is as good as absent.
 * @returns the problems if it cannot be read as one map, or null if there is no such file.
 */
export function readSource(file: string): Source | Problem[] | null {
  let text: string;
  try {
    text = readText(file);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    return [{ source: file, path: '', message: messageOf(error) }];
  }
  return parseSource(file, text);
}

/** As readSource, of a text that was read from `name`. */
export function parseSource(name: string, text: string): Source | Problem[] {
  const lines = new LineCounter();
  const at = (offset: number, path: Path, message: string): Problem => {
    const { line, col } = lines.linePos(offset);
    return { source: name, line, column: col, path: formatPath(path), message };
  };
  const document = parseDocument(text, {
    lineCounter: lines,
    // Only maps, lists and strings.
    schema: 'failsafe',
    prettyErrors: false,
    logLevel: 'silent',
  });
  const broken = [...document.errors, ...document.warnings].slice(0, MAX_SYNTAX_PROBLEMS);
  if (broken.length > 0) return broken.map(({ pos, message }) => at(pos[0], [], printable(message)));
  const unusable: Problem[] = [];
  visit(document, {
    // An alias would share settings that nobody sees side by side, and a few lines of them can mean millions.
    Alias: (_, { range }) => void unusable.push(at(range?.[0] ?? 0, [], 'aliases are not supported')),
    Pair: (_, { key, value }) => {
      if (!isScalar(key)) unusable.push(at(offsetOf(key), [], 'a key must be a word'));
      return isScalar(value) && value.type === 'PLAIN' && value.value === '' ? visit.REMOVE : undefined;
    },
  });
  const { contents } = document;
  const empty = contents === null || (isScalar(contents) && contents.value === '');
  if (!empty && !isMap(contents)) unusable.push(at(offsetOf(contents), [], 'not a map of settings'));
  if (unusable.length > 0) return unusable;
  return {
    name,
    values: empty ? {} : document.toJS(),
    problemAt: (path, message, wrong) => at(offsetOfPath(contents, path, wrong), path, message),
  };
}

/** `admission.wait`; keys that are no words are quoted, since anything can be in a file. */
export function formatPath(path: Path): string {
  return path
    .map((key) => (/^[\w-]{1,64}$/.test(String(key)) ? String(key) : quoteWord(String(key))))
    .join('.');
}

function printable(message: string): string {
  return message.slice(0, MAX_MESSAGE).replaceAll(/[^\x20-\x7e]/g, '?');
}

/** Opens without waiting for a writer if it is a FIFO, and reads no device: neither would ever end. */
function readText(file: string): string {
  const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const { size } = fstatSync(fd);
    if (!fstatSync(fd).isFile()) throw new Error('not a regular file');
    if (size > MAX_FILE_BYTES) throw new Error(`larger than ${MAX_FILE_BYTES} bytes`);
    return new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(fd));
  } finally {
    closeSync(fd);
  }
}

/** Where a setting is, or what is left of the way to it; a map or a list is found by its key. */
function offsetOfPath(root: ParsedNode | null, path: Path, wrong: 'key' | 'value'): number {
  let node: unknown = root;
  let offset = offsetOf(root);
  for (const key of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && item.key.value === key);
      if (pair === undefined) break;
      node = pair.value;
      offset = offsetOf(wrong === 'value' && isScalar(node) ? node : pair.key);
    } else if (isSeq(node)) {
      node = node.items[Number(key)];
      offset = offsetOf(node);
    } else break;
  }
  return offset;
}

function offsetOf(node: unknown): number {
  return (node as Node | null | undefined)?.range?.[0] ?? 0;
}
