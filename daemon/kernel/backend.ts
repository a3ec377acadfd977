// SPDX-License-Identifier: Apache-2.0
import { AgentrmError, messageOf } from '../errors.ts';
import { BpfEnforcer } from './bpf-enforcer.ts';
import { takeOwnCgroup } from './delegation.ts';
import type { Enforcer, EnforcerEvents } from './enforcer.ts';
import type { Native } from './native.ts';
import { RoutedEnforcer } from './routed-enforcer.ts';
import { type CgroupRoot, openRoot } from './tree.ts';
import { UserEnforcer } from './user-enforcer.ts';

/** What the administrator allows: the best there is, one of the two only, or nothing. */
export type EnforcementMode = 'auto' | 'bpf' | 'user' | 'off';

export interface Backend {
  readonly root: CgroupRoot | undefined;
  readonly enforcer: Enforcer | undefined;
  readonly mode: 'bpf' | 'user' | 'none';
  /** Why it is not the best mode; null if it is. */
  readonly reason: string | null;
  readonly degraded: readonly string[];
}

export interface BackendOptions {
  readonly native: Native;
  /** Null: below the cgroup that this process was started in. */
  readonly cgroupPath: string | null;
  readonly pinDir: string;
  readonly mode: EnforcementMode;
  readonly events: EnforcerEvents;
}

/**
 * Tries the back ends, best first: BPF in the kernel, the poller in user space, none. A host that cannot
 * enforce is no error: it still runs every command, unmanaged, and says why.
 * @throws AgentrmError AGENTRM_ERR_RUNNING if another daemon has the cgroup, whatever socket it listens on.
 */
export function openBackend(options: BackendOptions): Backend {
  const { native, mode, events } = options;
  const none = (reason: string): Backend => ({
    root: undefined,
    enforcer: undefined,
    mode: 'none',
    reason,
    degraded: [reason],
  });
  if (mode === 'off') return none('enforcement is switched off');
  let root: CgroupRoot;
  try {
    root = openRoot(native, options.cgroupPath ?? takeOwnCgroup(native));
  } catch (error) {
    return none(messageOf(error));
  }
  if (!root.cgroup.tryLock()) {
    root.cgroup.close();
    throw new AgentrmError('AGENTRM_ERR_RUNNING', `${root.path}: another daemon has this cgroup`);
  }
  let reason: string | null = null;
  if (mode !== 'user') {
    try {
      const bpf = new BpfEnforcer(native, root, options.pinDir, events);
      const enforcer = new RoutedEnforcer(root.path, bpf, new UserEnforcer(native, events));
      return { root, enforcer, mode: 'bpf', reason: null, degraded: root.degraded };
    } catch (error) {
      reason = `no BPF: ${messageOf(error)}`;
      if (mode === 'bpf') {
        root.cgroup.close();
        return none(reason);
      }
    }
  }
  return {
    root,
    enforcer: new UserEnforcer(native, events),
    mode: 'user',
    reason: reason ?? 'enforcement is set to user space',
    degraded: reason === null ? root.degraded : [...root.degraded, reason],
  };
}
