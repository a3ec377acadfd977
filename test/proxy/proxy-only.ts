// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { top } from '../lib/daemon.ts';
import { freePort } from '../lib/port.ts';

export interface ProxyOnly {
  readonly child: ChildProcess;
  readonly url: string;
  /** Its own, with its control socket `socket`. */
  readonly dir: string;
  /** The next line of its log that has this. */
  logged(text: string): Promise<string>;
}

/** `agentrmd --proxy-only`, from source, when it is ready. @param env besides what every one has @param from the checkout */
export async function startProxyOnly(
  t: TestContext,
  env: Readonly<Record<string, string>>,
  from = top,
): Promise<ProxyOnly> {
  const dir = mkdtempSync(join(tmpdir(), 'agentrm-proxy-only-'));
  const port = await freePort();
  const args = ['--disable-warning=ExperimentalWarning', join(from, 'daemon/main.ts'), '--proxy-only'];
  const child = spawn(process.execPath, [...args, '--socket', join(dir, 'socket')], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      PATH: process.env.PATH,
      HOME: dir,
      AGENTRM_STATE_DIR: join(dir, 'state'),
      AGENTRM_PROXY_LISTEN: `127.0.0.1:${port}`,
      ...env,
    },
  });
  t.after(() => {
    child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  });
  const lines = createInterface({ input: child.stdout ?? assert.fail() })[Symbol.asyncIterator]();
  const logged = async (text: string): Promise<string> => {
    for (;;) {
      const { value, done } = await lines.next();
      if (done) throw new Error(`it ended without: ${text}`);
      if (value.includes(text)) return value;
    }
  };
  await logged('"msg":"ready"');
  return { child, url: `http://127.0.0.1:${port}`, dir, logged };
}
