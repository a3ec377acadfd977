// SPDX-License-Identifier: Apache-2.0
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type * as z from 'zod';
import { errnoOf, messageOf } from '../errors.ts';
import { quoteWord } from '../toolcall/intent.ts';
import { type Config, configSchema } from './schema.ts';
import { formatPath, type Problem, readSource, type Source } from './source.ts';
import { uidOfUser } from './users.ts';

/** Settings that can be given without a file, for trials and tests. */
const SETTINGS = [
  { flag: 'socket', option: '--socket', variable: 'AGENTRM_SOCKET', path: ['socket'] },
  { flag: 'cgroup', option: '--cgroup', variable: 'AGENTRM_CGROUP', path: ['cgroup'] },
  { flag: 'stateDir', option: '--state-dir', variable: 'AGENTRM_STATE_DIR', path: ['stateDir'] },
  { flag: 'logLevel', option: '--log-level', variable: 'AGENTRM_LOG_LEVEL', path: ['log', 'level'] },
] as const;

/** Settings that only the environment gives, for trials and tests. */
const VARIABLES = [
  { variable: 'AGENTRM_PROXY_LISTEN', path: ['proxy', 'listen'] },
  { variable: 'AGENTRM_UPSTREAM_ANTHROPIC', path: ['proxy', 'upstreams', 'anthropic', 'url'] },
  { variable: 'AGENTRM_UPSTREAM_OPENAI', path: ['proxy', 'upstreams', 'openai', 'url'] },
] as const;

export type Flags = { readonly [Name in (typeof SETTINGS)[number]['flag']]?: string | undefined };

export interface LoadOptions {
  /** The only file, instead of all those of the system; it must exist. Overrides AGENTRM_CONFIG. */
  readonly file?: string | undefined;
  readonly flags?: Flags;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Where /usr/lib, /etc and /etc/passwd are. */
  readonly root?: string;
  /** Whose daemon it is; that of an ordinary user has a file of its own. */
  readonly uid?: number;
}

export type Loaded =
  | { readonly ok: true; readonly config: Config; readonly files: readonly string[] }
  | { readonly ok: false; readonly problems: readonly Problem[] };

/**
 * The configuration: /usr/lib/agentrm/agentrmd.yaml, over it /etc/agentrm/agentrmd.yaml, over it
 * /etc/agentrm/conf.d/*.yaml by name, over it for an ordinary user agentrm/agentrmd.yaml in XDG_CONFIG_HOME, or
 * one file instead of them all; over it the environment
 * (AGENTRM_SOCKET, AGENTRM_CGROUP, AGENTRM_STATE_DIR, AGENTRM_LOG_LEVEL, AGENTRM_PROXY_LISTEN,
 * AGENTRM_UPSTREAM_ANTHROPIC, AGENTRM_UPSTREAM_OPENAI), over it the command line. Maps
 * are merged; the lists `rules` and `ceilings` are put together, the later file first. No file is needed.
 * @returns every problem of every source at once, if there is any.
 */
export function loadConfig({
  file,
  flags = {},
  env = process.env,
  root = '/',
  uid = process.geteuid?.() ?? 0,
}: LoadOptions = {}): Loaded {
  const schema = configSchema((name) => uidOfUser(name, join(root, 'etc/passwd')));
  const problems: Problem[] = [];
  const sources: Source[] = [];
  const add = (read: Source | Problem[] | null): void => {
    if (Array.isArray(read)) problems.push(...read);
    else if (read !== null) sources.push(read);
  };
  const only = file ?? (env.AGENTRM_CONFIG || undefined);
  for (const name of only === undefined ? [...systemFiles(root, problems), ...userFiles(env, uid)] : [only]) {
    const read = readSource(name);
    add(read === null && only !== undefined ? [{ source: name, path: '', message: 'no such file' }] : read);
  }
  const files = sources.map(({ name }) => name);
  for (const { variable, path } of VARIABLES) {
    if (env[variable]) sources.push(single(variable, path, env[variable]));
  }
  for (const { flag, option, variable, path } of SETTINGS) {
    // An empty variable is one that a script has not set.
    if (env[variable]) sources.push(single(variable, path, env[variable]));
    if (flags[flag] !== undefined) sources.push(single(option, path, flags[flag]));
  }
  for (const source of sources) {
    const parsed = schema.safeParse(source.values, { reportInput: true });
    if (!parsed.success) problems.push(...problemsOf(parsed.error.issues, source));
  }
  if (problems.length > 0) return { ok: false, problems };
  // Each is valid by itself, and no setting depends on another: so is what they make together.
  const config = schema.parse(sources.reduce<Values>((under, { values }) => merge(under, values), {}));
  return { ok: true, config, files };
}

type Values = Readonly<Record<string, unknown>>;

function systemFiles(root: string, problems: Problem[]): string[] {
  const directory = join(root, 'etc/agentrm/conf.d');
  const files = [join(root, 'usr/lib/agentrm/agentrmd.yaml'), join(root, 'etc/agentrm/agentrmd.yaml')];
  try {
    // Names that begin with a dot are what editors and package managers leave behind.
    const names = readdirSync(directory).filter((name) => name.endsWith('.yaml') && !name.startsWith('.'));
    return [...files, ...names.sort().map((name) => join(directory, name))];
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT')
      problems.push({ source: directory, path: '', message: messageOf(error) });
    return files;
  }
}

function userFiles(env: NonNullable<LoadOptions['env']>, uid: number): string[] {
  const directory = env.XDG_CONFIG_HOME || (env.HOME && join(env.HOME, '.config'));
  return uid === 0 || !directory ? [] : [join(directory, 'agentrm/agentrmd.yaml')];
}

/** A source of one setting. */
function single(name: string, path: readonly string[], value: string): Source {
  const values = path.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value) as Values;
  return {
    name,
    values,
    problemAt: (at, message) => ({ source: name, path: formatPath(at), message }),
  };
}

function merge(under: Values, over: Values): Values {
  const merged = { ...under };
  for (const [key, value] of Object.entries(over)) {
    const below = merged[key];
    if (Array.isArray(value) && Array.isArray(below)) merged[key] = [...value, ...below];
    else if (isValues(value) && isValues(below)) merged[key] = merge(below, value);
    else merged[key] = value;
  }
  return merged;
}

function isValues(value: unknown): value is Values {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** In the order of the file. */
function problemsOf(issues: readonly z.core.$ZodIssue[], source: Source): Problem[] {
  const found = issues.flatMap((issue) =>
    issue.code === 'unrecognized_keys'
      ? issue.keys.map((key) => source.problemAt([...issue.path, key], 'unknown key', 'key'))
      : [source.problemAt(issue.path, messageFor(issue), 'value')],
  );
  return found.sort((a, b) => (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0));
}

function messageFor(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      if (issue.input === undefined) return 'missing';
      return `not ${KINDS[issue.expected] ?? issue.expected}`;
    case 'invalid_value':
      if (typeof issue.input !== 'string') return 'not a single value';
      return `${quoteWord(issue.input)}: not one of ${issue.values.join(', ')}`;
    default:
      return issue.message;
  }
}

/** What zod expects, as the reader of a YAML file would call it. */
const KINDS: Readonly<Record<string, string>> = {
  object: 'a map',
  record: 'a map',
  array: 'a list',
  string: 'a single value',
};
