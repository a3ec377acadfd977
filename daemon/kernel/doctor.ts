// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import type { Check } from '../control/types.ts';
import { errnoOf } from '../errors.ts';
import { distDir } from '../own-program.ts';
import { files } from './files.ts';

export interface HostRoots {
  readonly procRoot?: string;
  readonly sysRoot?: string;
  /** The cgroup below which calls get theirs. */
  readonly cgroupRoot?: string;
  /** The folder of agentrm-bash and agentrm-guard. */
  readonly helpers?: string;
}

/**
 * What this host offers for enforcement, as far as files can tell; nothing is changed or tried. Check by
 * check in the order in which a person would look, and never an error: what cannot be read is a finding.
 */
export async function hostChecks(roots: HostRoots = {}): Promise<Check[]> {
  const {
    procRoot = '/proc',
    sysRoot = '/sys',
    cgroupRoot = '/sys/fs/cgroup/agentrm',
    helpers = distDir,
  } = roots;
  const mounts = readMounts(procRoot);
  const hierarchy = mounts.filter(({ type }) => type === 'cgroup2');
  const mount = hierarchy.filter(({ path }) => cgroupRoot.startsWith(`${path}/`)).at(-1);
  return [
    kernelCheck(procRoot),
    mount === undefined ? noHierarchy(cgroupRoot, hierarchy) : controllersCheck(mount.path),
    btfCheck(sysRoot),
    bpffsCheck(mounts),
    pressureCheck(procRoot),
    hugePagesCheck(sysRoot),
    swapCheck(procRoot),
    oomdCheck(sysRoot),
    moveCheck(mount),
    await wrapperCheck(`${helpers}agentrm-bash`),
    guardCheck(`${helpers}agentrm-guard`),
  ];
}

interface Mount {
  readonly path: string;
  readonly type: string;
  /** Of the superblock, which is where those of cgroup v2 stand. */
  readonly options: readonly string[];
}

/** The oldest kernel that AgentRM is tested with. */
const OLDEST = { major: 6, minor: 1 };

function kernelCheck(procRoot: string): Check {
  const name = 'kernel';
  const release = read(`${procRoot}/sys/kernel/osrelease`)?.trim() ?? '';
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(release) ?? [];
  if (major === undefined) return { name, status: 'warn', detail: 'its version cannot be read' };
  const old = Number(major) - OLDEST.major || Number(minor) - OLDEST.minor;
  if (old >= 0) return { name, status: 'ok', detail: release };
  return {
    name,
    status: 'warn',
    detail: `${release} is older than any kernel that AgentRM is tested with`,
    fix: `Use Linux ${OLDEST.major}.${OLDEST.minor} or newer.`,
  };
}

function noHierarchy(cgroupRoot: string, hierarchy: readonly Mount[]): Check {
  const elsewhere = hierarchy.map(({ path }) => path).join(', ');
  return {
    name: 'cgroup',
    status: 'fail',
    detail: `${cgroupRoot} is not on cgroup v2${elsewhere && `, which is mounted on ${elsewhere}`}`,
    fix: 'Boot with systemd.unified_cgroup_hierarchy=1, or give agentrmd a --cgroup that is on cgroup v2.',
  };
}

/** What each controller is for; without memory nothing can be enforced. */
const controllers = {
  memory: 'memory limits',
  pids: 'limits on processes',
  cpu: 'CPU weights',
  io: 'I/O weights',
};

function controllersCheck(mount: string): Check {
  const name = 'cgroup';
  const offered = read(`${mount}/${files.controllers}`)?.trim().split(/\s+/) ?? [];
  const missing = Object.entries(controllers).filter(([controller]) => !offered.includes(controller));
  if (missing.length === 0) return { name, status: 'ok', detail: `v2 on ${mount}: ${offered.join(' ')}` };
  return {
    name,
    status: offered.includes('memory') ? 'warn' : 'fail',
    detail: `${mount} does not offer ${missing.map(([controller, use]) => `${controller} (${use})`).join(', ')}`,
    fix: offered.includes('memory')
      ? 'Enable what is missing in the kernel, or delegate it to this container.'
      : 'Boot without cgroup_disable=memory, with cgroup_enable=memory, and with cgroup v1 off (cgroup_no_v1=all).',
  };
}

function btfCheck(sysRoot: string): Check {
  const name = 'btf';
  const path = `${sysRoot}/kernel/btf/vmlinux`;
  if (existsSync(path)) return { name, status: 'ok', detail: path };
  return {
    name,
    status: 'warn',
    detail: `${path} is missing: BPF cannot be used, and a poller in user space stops calls later than the kernel`,
    fix: 'Use a kernel with CONFIG_DEBUG_INFO_BTF, as those of the distributions are.',
  };
}

function bpffsCheck(mounts: readonly Mount[]): Check {
  const name = 'bpffs';
  const mount = mounts.find(({ type }) => type === 'bpf');
  if (mount !== undefined) return { name, status: 'ok', detail: mount.path };
  return {
    name,
    status: 'warn',
    detail: 'no BPF file system is mounted: enforcement could not outlive the daemon',
    fix: 'Run mount -t bpf bpf /sys/fs/bpf.',
  };
}

function pressureCheck(procRoot: string): Check {
  const name = 'psi';
  if (read(`${procRoot}/pressure/memory`)) return { name, status: 'ok', detail: 'pressure is measured' };
  return {
    name,
    status: 'warn',
    detail: 'pressure is not measured: admission and lending go by free memory alone',
    fix: 'Boot with psi=1.',
  };
}

function hugePagesCheck(sysRoot: string): Check {
  const name = 'huge-pages';
  const enabled = read(`${sysRoot}/kernel/mm/transparent_hugepage/enabled`);
  const mode = /\[(\w+)\]/.exec(enabled ?? '')?.[1] ?? 'never';
  if (mode !== 'always') return { name, status: 'ok', detail: mode };
  return {
    name,
    status: 'note',
    detail: 'always: agentrm-bash turns them off for calls, since the kernel does not throttle their charges',
  };
}

function swapCheck(procRoot: string): Check {
  const name = 'swap';
  const lines = read(`${procRoot}/swaps`)?.trim().split('\n').slice(1) ?? [];
  if (lines.length === 0) return { name, status: 'ok', detail: 'none' };
  return {
    name,
    status: 'note',
    detail: 'present: calls use it only if their intent has memory.swap.max',
  };
}

function oomdCheck(sysRoot: string): Check {
  const name = 'systemd-oomd';
  if (!existsSync(`${sysRoot}/fs/cgroup/system.slice/systemd-oomd.service`)) {
    return { name, status: 'ok', detail: 'does not run' };
  }
  return {
    name,
    status: 'note',
    detail:
      'runs: under pressure it may kill the whole unit that an agent runs in, before AgentRM has decided',
    fix: 'Leave ManagedOOMMemoryPressure at auto for the units of agents, or raise its limit.',
  };
}

function moveCheck(mount: Mount | undefined): Check {
  const name = 'favordynmods';
  if (mount?.options.includes('favordynmods')) return { name, status: 'ok', detail: 'on' };
  return {
    name,
    status: 'note',
    detail: 'off: a call that cannot be forked into its cgroup waits 12 to 19 ms to be moved there',
  };
}

async function wrapperCheck(path: string): Promise<Check> {
  const name = 'agentrm-bash';
  if (!existsSync(path)) {
    return { name, status: 'fail', detail: `${path} is missing`, fix: 'Run make, or install the package.' };
  }
  const capabilities = await capabilitiesOf(path);
  if (capabilities?.includes('cap_dac_override')) {
    return { name, status: 'ok', detail: `${path} has CAP_DAC_OVERRIDE` };
  }
  return {
    name,
    status: 'note',
    detail:
      capabilities === undefined
        ? `${path}: its capabilities cannot be read, getcap is not installed`
        : `${path} has no capability: only calls of root are forked into their cgroup, others are moved`,
    ...(capabilities === undefined ? {} : { fix: `Run setcap cap_dac_override=p ${path}.` }),
  };
}

function guardCheck(path: string): Check {
  const name = 'agentrm-guard';
  if (existsSync(path)) return { name, status: 'ok', detail: path };
  return {
    name,
    status: 'warn',
    detail: `${path} is missing: what is frozen stays frozen if the daemon dies`,
    fix: 'Run make, or install the package.',
  };
}

/** The line of getcap(8) about a file, or undefined if there is no getcap. */
async function capabilitiesOf(path: string): Promise<string | undefined> {
  try {
    const env = { PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` };
    return (await promisify(execFile)('getcap', [path], { env })).stdout;
  } catch (error) {
    return errnoOf(error) === 'ENOENT' ? undefined : '';
  }
}

/** Reads /proc/self/mountinfo, outer mounts before inner ones. */
function readMounts(procRoot: string): Mount[] {
  return (read(`${procRoot}/self/mountinfo`) ?? '').split('\n').flatMap((line) => {
    const [before, after] = line.split(' - ');
    const path = before?.split(' ')[4];
    const [type, , options] = after?.split(' ') ?? [];
    if (path === undefined || type === undefined) return [];
    return [{ path, type, options: options?.split(',') ?? [] }];
  });
}

/** The text of a file, or undefined if it cannot be read, as with PSI that is switched off. */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
