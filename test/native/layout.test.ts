// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { native } from './addon.ts';

const object = new URL('../../dist/agentrm.bpf.o', import.meta.url).pathname;
const header = new URL('../../bpf/abi.h', import.meta.url).pathname;

interface Layout {
  size: number;
  fields: Record<string, number>;
}

/** What clang laid out for BPF, from the object's BTF. */
function btfLayouts(): Map<string, Layout> {
  interface Type {
    kind: string;
    name: string;
    size: number;
    members: { name: string; bits_offset: number }[];
  }
  const output = execFileSync('bpftool', ['-j', 'btf', 'dump', 'file', object], {
    encoding: 'utf8',
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
    maxBuffer: 2 ** 24,
  });
  const { types } = JSON.parse(output) as { types: Type[] };
  return new Map(
    types
      .filter(({ kind, name }) => kind === 'STRUCT' && name.startsWith('agentrm_'))
      .map(({ name, size, members }) => [
        name,
        { size, fields: Object.fromEntries(members.map((member) => [member.name, member.bits_offset / 8])) },
      ]),
  );
}

/** What a C compiler makes of the same structs. */
function compiledLayouts(structs: Record<string, Layout>): Record<string, Layout> {
  const directory = mkdtempSync(join(tmpdir(), 'agentrm-layout-'));
  const print = Object.entries(structs).flatMap(([name, { fields }]) => [
    `printf("%s  %zu\\n", "${name}", sizeof(struct ${name}));`,
    ...Object.keys(fields).map(
      (field) => `printf("%s ${field} %zu\\n", "${name}", offsetof(struct ${name}, ${field}));`,
    ),
  ]);
  const source = `#include <stddef.h>\n#include <stdio.h>\n#include "${header}"\nint main(void) { ${print.join('\n')} }`;
  writeFileSync(join(directory, 'layout.c'), source);
  execFileSync('cc', [
    '-Wall',
    '-Wextra',
    '-Werror',
    '-o',
    join(directory, 'layout'),
    join(directory, 'layout.c'),
  ]);
  const lines = execFileSync(join(directory, 'layout'), { encoding: 'utf8' }).trim().split('\n');
  rmSync(directory, { recursive: true });
  const result: Record<string, Layout> = {};
  for (const [struct = '', field = '', value] of lines.map((line) => line.split(' '))) {
    result[struct] ??= { size: 0, fields: {} };
    const layout = result[struct];
    if (field === '') layout.size = Number(value);
    else layout.fields[field] = Number(value);
  }
  return result;
}

describe('the layouts shared with the BPF programs', () => {
  const { version, structs } = native.abi();

  it('have a version', () => {
    assert.ok(Number.isInteger(version) && version > 0);
  });

  it('are what clang made of them for BPF', () => {
    assert.deepEqual(Object.fromEntries(btfLayouts()), structs);
  });

  it('are what a C compiler makes of them', () => {
    assert.deepEqual(compiledLayouts(structs), structs);
  });

  it('have no holes that compilers could fill differently', () => {
    for (const [name, { size, fields }] of Object.entries(structs)) {
      const starts = Object.values(fields);
      const steps = [...starts.slice(1), size].map((end, index) => end - (starts[index] ?? 0));
      for (const step of steps) assert.ok([4, 8, 16].includes(step), `${name}: a field of ${step} bytes`);
    }
  });
});
