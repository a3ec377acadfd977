// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type Ran, runCommand } from './daemon.ts';

let counter = 0;

/** What a container gets of root's capabilities unless told otherwise, as with Docker and Podman. */
const capabilities = [
  ...['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'KILL', 'SETGID', 'SETUID', 'SETPCAP'],
  ...['NET_BIND_SERVICE', 'SYS_CHROOT', 'SETFCAP'],
].map((name) => `CAP_${name}`);

/**
 * A container of a real runtime: the files of this machine, but namespaces for processes, mounts and
 * cgroups, a memory limit, and the directory of a daemon's socket at /run/agentrm.
 */
export class Container {
  readonly runtime: string;
  readonly name = `box-${process.pid}-${counter++}`;
  /** Its cgroup as it is on the host. */
  readonly cgroup = `/sys/fs/cgroup/${this.name}`;
  readonly #bundle = mkdtempSync('/run/agentrm-box-');
  #running = false;

  constructor(runtime: string, options: { limitBytes: number; socketDir: string }) {
    this.runtime = runtime;
    mkdirSync(join(this.#bundle, 'rootfs'));
    writeFileSync(join(this.#bundle, 'config.json'), JSON.stringify(this.#config(options)));
  }

  async start(): Promise<this> {
    // Of its own: the runtime's output is that of the container's first process, which lives on.
    const log = openSync(join(this.#bundle, 'log'), 'w');
    const args = ['run', '--detach', '--bundle', this.#bundle, this.name];
    const mounted = await runCommand('mount', ['--bind', '/', join(this.#bundle, 'rootfs')]);
    assert.equal(mounted.code, 0, mounted.stderr);
    const child = spawn(this.runtime, args, { stdio: ['ignore', log, log] });
    closeSync(log);
    const [code] = await once(child, 'exit');
    assert.equal(code, 0, readFileSync(join(this.#bundle, 'log'), 'utf8'));
    this.#running = true;
    return this;
  }

  /** As `docker exec`. */
  exec(command: readonly string[], env: Record<string, string> = {}): Promise<Ran> {
    const variables = Object.entries(env).flatMap(([name, value]) => ['--env', `${name}=${value}`]);
    return runCommand(this.runtime, ['exec', ...variables, this.name, ...command]);
  }

  async do(...words: string[]): Promise<void> {
    const ran = await runCommand(this.runtime, [...words, this.name]);
    assert.equal(ran.code, 0, `${this.runtime} ${words.join(' ')}: ${ran.stderr}`);
  }

  /** Ends it with all that runs in it. */
  async stop(): Promise<void> {
    if (!this.#running) return;
    this.#running = false;
    await this.do('delete', '--force');
  }

  async close(): Promise<void> {
    await this.stop();
    await runCommand('umount', ['--lazy', join(this.#bundle, 'rootfs')]);
    rmdirSync(join(this.#bundle, 'rootfs'));
    rmSync(this.#bundle, { recursive: true });
  }

  #config({ limitBytes, socketDir }: { limitBytes: number; socketDir: string }): object {
    const all = { bounding: capabilities, effective: capabilities, permitted: capabilities };
    return {
      ociVersion: '1.0.2',
      process: {
        user: { uid: 0, gid: 0 },
        args: ['/bin/sleep', 'infinity'],
        env: ['PATH=/usr/bin:/bin'],
        cwd: '/',
        capabilities: all,
      },
      root: { path: 'rootfs' },
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' },
        { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['mode=755'] },
        { destination: '/run', type: 'tmpfs', source: 'tmpfs', options: ['mode=755'] },
        { destination: '/run/agentrm', type: 'bind', source: socketDir, options: ['bind'] },
        { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['ro'] },
        { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['ro'] },
      ],
      linux: {
        cgroupsPath: `/${this.name}`,
        resources: { memory: { limit: limitBytes, swap: limitBytes } },
        namespaces: ['pid', 'mount', 'ipc', 'uts', 'cgroup'].map((type) => ({ type })),
      },
    };
  }
}
