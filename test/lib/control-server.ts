// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

/** An answer: the status and body, or what to do with the response. */
export type Answer = readonly [status: number, body: string] | ((response: ServerResponse) => void);

/**
 * Answers on a unix socket as a daemon would, by path with query; for tests of what asks it. Other
 * paths are answered with 404. Gone after the test.
 */
export async function serve(t: TestContext, answers: Readonly<Record<string, Answer>>) {
  const directory = mkdtempSync(join(tmpdir(), 'agentrm-control-'));
  const socket = join(directory, 'agentrm.sock');
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    asked.push(path);
    const answer = answers[path] ?? [404, JSON.stringify({ error: `no such path: ${path}` })];
    if (typeof answer === 'function') answer(response);
    else response.writeHead(answer[0]).end(answer[1]);
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
    rmSync(directory, { recursive: true });
  });
  return { socket, asked };
}

/** The body of an answer in lines. */
export function lines(values: readonly unknown[]): string {
  return values.map((value) => `${JSON.stringify(value)}\n`).join('');
}
