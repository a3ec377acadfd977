// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { top } from '../../lib/daemon.ts';
import { freePort } from '../../lib/port.ts';

/** The gateway that we are compared with, and the version: the newest on npm in November 2026. */
const PEER = '@portkey-ai/gateway@1.15.2';
/** Fetched here when the benchmark runs, and used for nothing else. */
const PEER_DIR = join(top, 'build/bench/portkey');

/** A server to measure, in a process of its own. */
export interface Server {
  readonly name: string;
  /** Where chat completions are asked for. */
  readonly origin: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Of its process, in bytes. */
  rssBytes(): number;
  /** CPU time that its process has used, in milliseconds; it is kept in hundredths of a second. */
  cpuMs(): number;
  close(): Promise<void>;
}

function serve(
  name: string,
  origin: string,
  child: ChildProcess,
  headers: Record<string, string> = {},
): Server {
  return {
    name,
    origin,
    headers,
    rssBytes: () =>
      Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) * 1024,
    cpuMs: () => {
      const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8')
        .replace(/^.*\) /, '')
        .split(' ');
      return (Number(fields[11]) + Number(fields[12])) * 10;
    },
    async close() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** Starts a program and waits for a line that it prints. @throws Error if it ends before that */
async function start(args: string[], env: NodeJS.ProcessEnv, line: RegExp): Promise<[ChildProcess, string]> {
  const [file, ...rest] = args;
  const child = spawn(file ?? '', rest, { stdio: ['ignore', 'pipe', 'ignore'], env });
  for await (const text of createInterface({ input: child.stdout })) {
    if (!line.test(text)) continue;
    // What else it prints must not fill the pipe.
    child.stdout.resume();
    return [child, text];
  }
  throw new Error(`${args.join(' ')}: ended before it was ready`);
}

export async function startUpstream(): Promise<Server> {
  const [child, port] = await start(
    [process.execPath, join(import.meta.dirname, 'upstream.ts')],
    process.env,
    /^\d+$/,
  );
  return serve('direct', `http://127.0.0.1:${port}`, child);
}

/** Our core, in a process of its own. */
export interface CoreServer extends Server {
  readonly pid: number;
  /** Its control socket. */
  readonly socket: string;
}

/**
 * What is shipped, alone: `dist/agentrmd --proxy-only`.
 * @param upstream the origin of both providers
 * @param settings of its configuration file
 */
export async function startCore(upstream: string, settings: string): Promise<CoreServer> {
  const port = await freePort();
  const dir = mkdtempSync(join(tmpdir(), 'agentrm-bench-'));
  const config = join(dir, 'agentrmd.yaml');
  writeFileSync(config, settings);
  const socket = join(dir, 'socket');
  const env = {
    ...process.env,
    AGENTRM_PROXY_LISTEN: `127.0.0.1:${port}`,
    AGENTRM_UPSTREAM_ANTHROPIC: upstream,
    AGENTRM_UPSTREAM_OPENAI: upstream,
    AGENTRM_STATE_DIR: join(dir, 'state'),
    AGENTRM_SOCKET: socket,
    AGENTRM_CONFIG: config,
  };
  const [child] = await start([join(top, 'dist/agentrmd'), '--proxy-only'], env, /"msg":"ready"/);
  const server = serve('agentrm', `http://127.0.0.1:${port}`, child);
  return {
    ...server,
    pid: child.pid ?? 0,
    socket,
    async close() {
      await server.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** As many lanes as there are streams: how they are found is another benchmark. */
export function startOurs(upstream: Server): Promise<Server> {
  return startCore(upstream.origin, 'proxy: { lanes: { start: 1024 } }\n');
}

/** @returns null where it cannot be fetched. */
export async function startPeer(upstream: Server): Promise<Server | null> {
  const script = join(PEER_DIR, 'node_modules/@portkey-ai/gateway/build/start-server.js');
  if (!existsSync(script)) {
    mkdirSync(PEER_DIR, { recursive: true });
    const flags = ['--no-save', '--no-package-lock', '--ignore-scripts', '--silent', '--prefix', PEER_DIR];
    const { status } = spawnSync('npm', ['install', ...flags, PEER], { stdio: 'inherit' });
    if (status !== 0) return null;
  }
  const port = await freePort();
  const [child] = await start(
    [process.execPath, script, '--headless', `--port=${port}`],
    process.env,
    /Ready/,
  );
  return serve('portkey', `http://127.0.0.1:${port}`, child, {
    'x-portkey-provider': 'openai',
    'x-portkey-custom-host': `${upstream.origin}/v1`,
  });
}
