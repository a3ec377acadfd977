// SPDX-License-Identifier: Apache-2.0
import * as z from 'zod';
import { configSchema } from './schema.ts';

/** As wide as the sources: a file that people read in an editor. */
const WIDTH = 110;

const HEADER = `
Configuration of agentrmd. All settings are shown with their defaults, each with its reason; to change one, take the "#" off its line and off that of its section. Put changes into /etc/agentrm/agentrmd.yaml or into files of their own, /etc/agentrm/conf.d/NAME.yaml. "agentrm check-config" tells what is wrong with them.

Sizes: a number with K, M, G or T, 1024-based; without one, bytes. Times: a number with ms, s, m or h; without one, seconds. Limits are words as in AGENTRM_INTENT: memory.high memory.max memory.swap.max cpu.weight cpu.max io.weight pids.max timeout class.
`;

/**
 * The configuration file as it is shipped: every setting with its description and its default, commented
 * out. A setting follows its "#" directly, or by two spaces for each section that it is in; text and examples
 * follow by an odd number of them.
 */
export function sampleConfig(): string {
  const schema = z.toJSONSchema(
    configSchema(() => undefined),
    { io: 'input', unrepresentable: 'any' },
  );
  return `${[...prose(HEADER.trim()), ...settings(schema, '')].join('\n')}\n`;
}

function settings(schema: z.core.JSONSchema.JSONSchema, indent: string): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([key, property]) => {
    if (typeof property === 'boolean') return [];
    const above = ['', ...prose(property.description ?? '')];
    if (property.properties !== undefined) {
      return [...above, `#${indent}${key}:`, ...settings(property, `${indent}  `)];
    }
    return [...above, `#${indent}${key}: ${show(property.default)}`];
  });
}

/** No default needs quotes in YAML, except for an empty one. */
function show(value: unknown): string {
  return typeof value === 'string' && value !== '' ? value : JSON.stringify(value);
}

/** A line is a paragraph, wrapped; the indentation of an example is kept. */
function prose(text: string): string[] {
  return text.split('\n').flatMap((line) => (line === '' ? ['#'] : wrap(line)));
}

function wrap(line: string): string[] {
  const lines: string[] = [];
  let current = '#';
  for (const word of line.split(/(?<=\S) /)) {
    if (`${current} ${word}`.length > WIDTH && current !== '#') {
      lines.push(current);
      current = '#';
    }
    current += ` ${word}`;
  }
  return [...lines, current];
}

if (import.meta.main) process.stdout.write(sampleConfig());
