// SPDX-License-Identifier: Apache-2.0
import type { CommandText } from './command-text.ts';
import { simpleCommands, type Word } from './shell-words.ts';

/** Characters that are looked at: an agent's command says what it runs at its beginning. */
const MAX_SCANNED = 4096;
/** Characters of a shape; it is part of a key, and a pattern of a rule has 256 at most. */
const MAX_SHAPE = 160;
/** Commands of a list or a pipeline that make its shape; more would be as good as unique. */
const MAX_COMMANDS = 3;
/** Words of one command. */
const MAX_WORDS = 12;
/** Words before the first option that may be subcommands: `docker compose up`, `npm run build`. */
const MAX_SUBCOMMANDS = 2;
const MAX_NAME = 64;

const ANY = '*';

const words = (text: string): ReadonlySet<string> => new Set(text.trim().split(/\s+/));

/** What stands around commands, and needs no memory to speak of. */
const NEUTRAL = words(`
  : . [ [[ alias cat cd chmod cp cut date declare echo env exit export false for function grep head hostname kill
  local ls mkdir mv popd printf ps pushd pwd read readonly return rm sed select set shift shopt sleep source tail
  tee test touch tr true trap type ulimit umask unset wait wc which whoami case in`);

/** Words of the shell in front of a command. */
const KEYWORDS = words('if then elif else while until do ! { } fi done esac time');

/** Programs that run the command behind them. */
const PREFIXES = words('command doas env exec ionice nice nohup setsid stdbuf sudo time timeout xargs');
/** Their options with a word of their own. */
const PREFIX_OPTIONS = words('-c -g -I -k -L -n -P -s -u');

/**
 * Subcommands and modules that may be kept where nothing but the name of a program may: being in a list that
 * is the same for everybody, they cannot be anybody's secret.
 */
const KNOWN = words(`
  add all apply audit bench black build bundle check checkout ci clean clippy clone cmake commit compileall compile
  compose coverage create deploy dev diff doc docs down e2e eslint exec fetch fmt format generate gc gradle
  http.server init install integration jest lint log make merge migrate mod mypy nextest next package pip pip3 plan
  playwright prettier prod production publish pull push pylint pytest rebase release restore ruff run serve start
  status sync test test:e2e test:integration test:unit tests tidy timeit tsc tsx typecheck type-check unit unittest
  up update upgrade validate venv verify vet vite vitest watch webpack`);

/**
 * What a command has in common with other runs of it: the programs, their subcommands and options; `*` for
 * paths, numbers, values and everything quoted, substituted or piped in. Of a list or a pipeline those programs
 * that matter: `cd /x && npm test -- a.ts 2>&1 | tail -5` is `npm test --`. It is also a pattern for a rule.
 * @param keep with `firstWord` nothing but names of programs and words of a list that is part of this program:
 *   no argument of the user's is in it. With `none` there is no shape.
 * @returns printable ASCII, at most 160 characters; empty if nothing can be said of the command.
 */
export function commandShape(command: string, keep: CommandText): string {
  if (keep === 'none') return '';
  const commands = simpleCommands(command.slice(0, MAX_SCANNED))
    .map(withoutPrefixes)
    .filter((found) => found.length > 0);
  const important = commands.filter(([program]) => !(program?.plain && NEUTRAL.has(program.text)));
  const chosen = important.length > 0 ? important : commands.slice(0, 1);
  const shapes: string[] = [];
  for (const found of chosen) {
    const shape = shapeOf(found, keep);
    if (shape !== shapes.at(-1)) shapes.push(shape);
    if (shapes.length === MAX_COMMANDS) break;
  }
  const all = collapse(shapes.join(` ${ANY} `).split(' '));
  return /[^*\s/]/.test(all) ? all : '';
}

function withoutPrefixes(command: readonly Word[]): readonly Word[] {
  let at = 0;
  const text = () => command[at]?.text ?? '';
  for (;;) {
    if (/^[A-Za-z_]\w*(?:\[\w*\])?\+?=/.test(text())) {
      at += 1;
    } else if (command[at]?.plain && KEYWORDS.has(text())) {
      at += 1;
    } else if (command[at]?.plain && PREFIXES.has(text())) {
      at += 1;
      while (/^[-+]/.test(text()) || /^[\d.]+[smhd]?$/.test(text())) {
        at += PREFIX_OPTIONS.has(text()) ? 2 : 1;
      }
    } else {
      return command.slice(at);
    }
  }
}

function shapeOf([first, ...rest]: readonly Word[], keep: 'firstWord' | 'full'): string {
  const program = programOf(first);
  // Its arguments alone would be a rule for everybody's.
  if (program === ANY) return ANY;
  const kept: string[] = [program];
  const python = /^(?:\*\/)?python[\d.]*$/.test(program);
  let subcommands = 0;
  let module = false;
  for (const word of rest) {
    const shown = module ? moduleOf(word, keep) : null;
    const subcommand = subcommands >= 0 && subcommands < MAX_SUBCOMMANDS ? subcommandOf(word, keep) : null;
    module = python && word.plain && word.text === '-m';
    if (shown !== null) {
      kept.push(shown);
    } else if (module) {
      kept.push('-m');
    } else if (subcommand !== null) {
      kept.push(subcommand);
      subcommands += 1;
      continue;
    } else {
      kept.push(keep === 'full' ? optionOf(word) : ANY);
    }
    // What follows an option or an argument may be its value.
    subcommands = -1;
  }
  return collapse(kept.slice(0, MAX_WORDS));
}

/** The name of a program; where it was called by a path, `*` stands for its directory. */
function programOf(word: Word | undefined): string {
  if (!word?.plain || !/^[\w.+~/-]+$/.test(word.text)) return ANY;
  const name = word.text.slice(word.text.lastIndexOf('/') + 1).slice(0, MAX_NAME);
  if (name === '') return ANY;
  return word.text.includes('/') ? `${ANY}/${name}` : name;
}

function subcommandOf({ text, plain }: Word, keep: 'firstWord' | 'full'): string | null {
  if (!plain) return null;
  if (KNOWN.has(text)) return text;
  return keep === 'full' && /^[A-Za-z][A-Za-z:_-]{0,31}$/.test(text) ? text : null;
}

function moduleOf({ text, plain }: Word, keep: 'firstWord' | 'full'): string {
  if (!plain) return ANY;
  return KNOWN.has(text) || (keep === 'full' && /^[A-Za-z_][\w.]{0,63}$/.test(text)) ? text : ANY;
}

/** An option with `*` for its value and for numbers; `*` for any other word. */
function optionOf({ text, plain }: Word): string {
  const name = /^--?[A-Za-z][\w-]*=?|^--$/.exec(text)?.[0];
  if (name === undefined) return ANY;
  const shown = name.replace(/\d+/g, ANY);
  const valued = !plain || name.length < text.length || name.endsWith('=');
  return valued ? `${shown}${ANY}`.replace(/\*+$/, ANY) : shown;
}

/** One `*` for several, none at the end, whole words up to the bound. */
function collapse(parts: readonly string[]): string {
  let shape = '';
  let last = '';
  for (const part of parts) {
    if (part === ANY && last === ANY) continue;
    if (shape.length + 1 + part.length > MAX_SHAPE) break;
    shape += shape === '' ? part : ` ${part}`;
    last = part;
  }
  return shape.replace(/(?: \*)+$/, '');
}
