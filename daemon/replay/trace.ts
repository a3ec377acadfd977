// SPDX-License-Identifier: Apache-2.0
import { readFileSync, statSync } from 'node:fs';
import { MAX_SIZE_BYTES } from '../units.ts';

/** What a session held, and when. */
export interface Sample {
  /** Since the first sample; never falls. */
  readonly atMs: number;
  readonly bytes: number;
}

export type Trace = readonly Sample[];

/** What is wrong with a trace, and where in it. */
export class TraceError extends Error {
  override readonly name = 'TraceError';
}

/** A day at one sample a second is 10 MB; a larger file is another file, given by mistake. */
const MAX_FILE_BYTES = 64 * 1024 * 1024;
/** No recorded session is as long, and the time of every step stays exact in ns. */
const MAX_DURATION_S = 30 * 24 * 3600;

const MEGABYTE = 1e6;
/** As podman (decimal) and docker (binary) write them. */
const UNITS: ReadonlyMap<string, number> = new Map([
  ['B', 1],
  ['KB', 1e3],
  ['MB', 1e6],
  ['GB', 1e9],
  ['TB', 1e12],
  ['KIB', 2 ** 10],
  ['MIB', 2 ** 20],
  ['GIB', 2 ** 30],
  ['TIB', 2 ** 40],
]);
const USED = /^\s*(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([kmgt]?i?b)\s*(?:\/.*)?$/i;

/**
 * Reads a trace of either form.
 * @throws TraceError with the path, and the place in the file where something is wrong.
 */
export function readTrace(path: string): Trace {
  let text: string;
  try {
    const { size } = statSync(path);
    if (size > MAX_FILE_BYTES) throw new Error(`larger than ${MAX_FILE_BYTES} bytes`);
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new TraceError(`${path}: ${(error as Error).message}`);
  }
  return parseTrace(text, path);
}

/**
 * A trace is JSON: `[[t_s, memory_MB], …]` with decimal megabytes, alone or as the `samples` of an object; or the
 * `resources.json` of AgentCgroup, whose samples are objects with `epoch` (s) and `mem_usage` ("185.5MB / 134.5GB").
 * @param name of the trace, for what is thrown.
 * @throws TraceError
 */
export function parseTrace(text: string, name: string): Trace {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw new TraceError(`${name}: ${(error as Error).message}`);
  }
  const entries = isObject(content) ? content.samples : content;
  if (!Array.isArray(entries))
    throw new TraceError(`${name}: neither a list of samples nor an object with one`);
  if (entries.length === 0) throw new TraceError(`${name}: no samples`);
  const samples: Sample[] = [];
  let firstS = 0;
  for (const [index, entry] of entries.entries()) {
    // Counted from 1, as people do.
    const refuse = (reason: string) => new TraceError(`${name}: sample ${index + 1}: ${reason}`);
    const { seconds, bytes } = readSample(entry, refuse);
    if (index === 0) firstS = seconds;
    // Whole microseconds: differences of epochs have noise behind that.
    const atMs = Math.round((seconds - firstS) * 1e6) / 1e3;
    if (atMs < (samples.at(-1)?.atMs ?? 0)) throw refuse('time goes back');
    if (atMs > MAX_DURATION_S * 1000) throw refuse('more than 30 days after the first');
    samples.push({ atMs, bytes });
  }
  return samples;
}

/** The most that a trace holds at once. */
export function peakBytes(trace: Trace): number {
  return trace.reduce((peak, { bytes }) => Math.max(peak, bytes), 0);
}

function readSample(entry: unknown, refuse: (reason: string) => Error): { seconds: number; bytes: number } {
  const [seconds, bytes] = Array.isArray(entry)
    ? [entry[0], typeof entry[1] === 'number' ? entry[1] * MEGABYTE : entry[1]]
    : isObject(entry)
      ? [entry.epoch, parseUsage(entry.mem_usage)]
      : [undefined, undefined];
  if (typeof seconds !== 'number' || !Number.isFinite(seconds)) throw refuse(`no time in ${show(entry)}`);
  if (typeof bytes !== 'number' || !Number.isFinite(bytes)) throw refuse(`no memory in ${show(entry)}`);
  if (bytes < 0) throw refuse(`negative memory in ${show(entry)}`);
  if (bytes > MAX_SIZE_BYTES) throw refuse(`memory over 1024T in ${show(entry)}`);
  return { seconds, bytes: Math.round(bytes) };
}

/** Bytes of `185.5MB / 134.5GB`: the first of the two is what is used. */
function parseUsage(usage: unknown): number | undefined {
  const match = typeof usage === 'string' ? USED.exec(usage) : null;
  const unit = UNITS.get(match?.[2]?.toUpperCase() ?? '');
  return match === null || unit === undefined ? undefined : Number(match[1]) * unit;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Enough of an entry to find it again. */
function show(entry: unknown): string {
  const text = JSON.stringify(entry) ?? 'nothing';
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
