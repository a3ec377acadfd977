// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';

export interface HostMemory {
  readonly totalBytes: number;
  readonly availableBytes: number;
  readonly swapFreeBytes: number;
}

/**
 * Reads /proc/meminfo.
 * @throws Error with errno and path if it cannot be read, or names the missing field.
 */
export function hostMemory(procRoot = '/proc'): HostMemory {
  const path = `${procRoot}/meminfo`;
  const text = readFileSync(path, 'latin1');
  const field = (name: string): number => {
    const match = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text);
    if (match === null) throw new Error(`read ${path}: no ${name}`);
    return Number(match[1]) * 1024;
  };
  return {
    totalBytes: field('MemTotal'),
    availableBytes: field('MemAvailable'),
    swapFreeBytes: field('SwapFree'),
  };
}

export interface Pressure {
  /** Share of the last 10 s in which some task stalled, 0 to 100. */
  readonly someAvg10: number;
  /** Share of the last 10 s in which all tasks stalled at once, 0 to 100. */
  readonly fullAvg10: number;
  readonly someTotalUs: number;
  readonly fullTotalUs: number;
}

/** Decodes a PSI file (Documentation/accounting/psi.rst); what is absent counts as 0. */
export function parsePressure(text: string): Pressure {
  const number = (kind: string, key: string): number =>
    Number(new RegExp(`^${kind} .*\\b${key}=([\\d.]+)`, 'm').exec(text)?.[1] ?? 0);
  return {
    someAvg10: number('some', 'avg10'),
    fullAvg10: number('full', 'avg10'),
    someTotalUs: number('some', 'total'),
    fullTotalUs: number('full', 'total'),
  };
}

/** Pressure of the host, or undefined where PSI is off. */
export function hostPressure(resource: 'cpu' | 'memory' | 'io', procRoot = '/proc'): Pressure | undefined {
  try {
    return parsePressure(readFileSync(`${procRoot}/pressure/${resource}`, 'latin1'));
  } catch {
    return undefined;
  }
}

/** Decodes a flat keyed file (`key number` lines: memory.events, cpu.stat …). */
export function parseFlatKeyed(text: string): ReadonlyMap<string, number> {
  const values = new Map<string, number>();
  for (const line of text.split('\n')) {
    const space = line.indexOf(' ');
    if (space > 0) values.set(line.slice(0, space), Number(line.slice(space + 1)));
  }
  return values;
}
