// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';

/** The wrapper waits 2 s to be placed; a manager that is stuck must not keep it longer. */
const TIMEOUT_MS = 1900;

/** The part of the hierarchy that process 1 knows of, and the path below it that it does not. */
export interface Unit {
  readonly name: string;
  readonly below: string;
}

/**
 * The unit of the system's manager that a cgroup is in: user@UID.service, for all that a user's own
 * manager makes.
 * @param procPath as in /proc/PID/cgroup.
 * @returns undefined if there is none.
 */
export function unitOf(procPath: string): Unit | undefined {
  const parts = procPath.split('/');
  const at = parts.findIndex((part) => /\.(service|scope)$/.test(part));
  const name = parts[at];
  return name === undefined ? undefined : { name, below: `/${parts.slice(at + 1).join('/')}` };
}

/** Whether there is a system's manager to ask. */
export function canAttach(procPath: string): boolean {
  return (
    unitOf(procPath) !== undefined &&
    existsSync('/run/systemd/system') &&
    existsSync('/run/dbus/system_bus_socket')
  );
}

/**
 * Has the system's manager bring a process into a cgroup of this user's, from wherever it is. It does so
 * for a process of the same user and a unit that is delegated to that user (org.freedesktop.systemd1(5)).
 * @throws Error with what the manager says.
 */
export async function attach(pid: number, procPath: string): Promise<void> {
  const unit = unitOf(procPath);
  if (unit === undefined) throw new Error(`${procPath} is in no unit`);
  const manager = [
    'org.freedesktop.systemd1',
    '/org/freedesktop/systemd1',
    'org.freedesktop.systemd1.Manager',
  ];
  const method = ['AttachProcessesToUnit', 'ssau', unit.name, unit.below, '1', String(pid)];
  try {
    await promisify(execFile)('busctl', ['--system', 'call', ...manager, ...method], { timeout: TIMEOUT_MS });
  } catch (error) {
    const { stderr, message } = error as Error & { stderr?: string };
    throw new Error(`process 1 did not move it: ${(stderr || message).trim()}`, { cause: error });
  }
}
