// SPDX-License-Identifier: Apache-2.0
import { nowMs } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import { canAttach } from '../kernel/attach.ts';
import { mayMove } from '../kernel/delegation.ts';
import { readOfPeer } from '../kernel/held.ts';
import { hostPressure } from '../kernel/host.ts';
import type { Native, PeerCred } from '../kernel/native.ts';
import { cgroupNamespaceOf, cgroupPathOf } from '../kernel/proc.ts';
import type { CgroupRoot } from '../kernel/tree.ts';
import { decideAdmission } from '../policy/admission.ts';
import { intentLine } from '../policy/report.ts';
import type { AdmissionQueue } from './admission-queue.ts';
import { type AnswerTo, type RunRequest, refusal } from './answer.ts';
import type { Call } from './call.ts';
import { about, type Emit } from './call-events.ts';
import { type CallRoots, callIdIn } from './call-roots.ts';
import { commandOf, intentOf } from './command.ts';
import type { Controller } from './controller.ts';
import { CALL_CLASSES, type Intent, parseIntent } from './intent.ts';
import type { LimitsResolver } from './limits-resolver.ts';
import type { Admitted, Starting } from './starting.ts';
import type { Unmanaged } from './unmanaged.ts';

export interface IntakeDeps {
  readonly native: Pick<Native, 'pidfdSendSignal'>;
  /** Undefined on a host without a usable cgroup v2. */
  readonly root: CgroupRoot | undefined;
  /** The daemon has no more rights than its callers. */
  readonly cooperative: boolean;
  readonly controller: Pick<Controller, 'pool' | 'short'> | undefined;
  readonly roots: CallRoots;
  readonly limits: Pick<LimitsResolver, 'ofRequest'>;
  readonly queue: AdmissionQueue;
  readonly starting: Starting;
  readonly unmanaged: Unmanaged;
  readonly config: () => Config;
  readonly emit: Emit;
  readonly onAdmitted: (waitMs: number) => void;
  readonly find: (id: string) => Call | undefined;
}

/** What withdraws a request that waits. */
type Withdraw = () => void;

/** Takes wrappers' requests: whether the command is managed, below which root, with what limits, and when it may start. */
export class Intake {
  readonly #deps: IntakeDeps;
  readonly #ownNamespace = cgroupNamespaceOf('self');

  constructor(deps: IntakeDeps) {
    this.#deps = deps;
  }

  /** @returns undefined if it was answered at once, else what withdraws the request. */
  take(peer: PeerCred, request: RunRequest, answer: AnswerTo): Withdraw | undefined {
    try {
      return this.#take(peer, request, answer);
    } catch (error) {
      this.#deps.unmanaged.because(error, peer, [], answer);
      return undefined;
    }
  }

  #take(peer: PeerCred, request: RunRequest, answer: AnswerTo): Withdraw | undefined {
    const { root, controller, roots, unmanaged } = this.#deps;
    if (root === undefined || controller === undefined) {
      const { notes, refused } = this.#declared(peer, request);
      if (refused) answer(refusal(notes));
      else unmanaged.degraded(notes, answer);
      return;
    }
    const path = readOfPeer(this.#deps.native, peer, cgroupPathOf);
    if (path === undefined) {
      unmanaged.silently('gone', answer);
      return;
    }
    const inRoot = roots.around(path);
    if (inRoot !== undefined) {
      this.#emitNested(peer, request, inRoot, path);
      unmanaged.silently('nested', answer);
      return;
    }
    const found = roots.containerOf(peer, path);
    if (!(found instanceof Promise)) return this.#takeBelow(found ?? root, path, peer, request, answer);
    // The first call from a container, for which that is prepared: a wait like that for admission.
    let withdraw: Withdraw | undefined;
    let withdrawn = false;
    found
      .then((target) => {
        if (!withdrawn) withdraw = this.#takeBelow(target ?? root, path, peer, request, answer);
      })
      .catch((error: unknown) => unmanaged.because(error, peer, [], answer));
    return () => {
      withdrawn = true;
      withdraw?.();
    };
  }

  /** @param path of the caller's cgroup. */
  #takeBelow(
    target: CgroupRoot,
    path: string,
    peer: PeerCred,
    request: RunRequest,
    answer: AnswerTo,
  ): Withdraw | undefined {
    const { controller, cooperative, unmanaged, limits } = this.#deps;
    if (controller === undefined) return;
    const { perCall, notes, refused } = this.#declared(peer, request);
    if (refused) {
      answer(refusal(notes));
      return;
    }
    const inside = !cooperative || mayMove(target.mount, target.procPath, path, peer.uid);
    if (!inside && !canAttach(target.procPath)) {
      unmanaged.because(outside(target, path), peer, notes, answer, 'outside');
      return;
    }
    const asked = limits.ofRequest(peer, request, path, perCall);
    // Who may move there may fork into it too, which does not wait for the kernel.
    const clone = inside && (cooperative || request.clone === true) && !this.#isBeyondBorder(peer, target);
    return this.#admit(controller, { peer, request, clone, root: target, asked, notes }, answer);
  }

  /** Whether a border of cgroup namespaces is between them: nobody forks across (kernel-notes/containers.md). */
  #isBeyondBorder(peer: PeerCred, target: CgroupRoot): boolean {
    // Below its container it is on its own side.
    if (target !== this.#deps.root) return false;
    const theirs = readOfPeer(this.#deps.native, peer, cgroupNamespaceOf);
    return theirs !== undefined && theirs !== this.#ownNamespace;
  }

  /** What the call declares of itself, and what its agent is to be told of it. */
  #declared(
    peer: PeerCred,
    request: RunRequest,
  ): { readonly perCall: Intent | undefined; readonly notes: readonly string[]; readonly refused: boolean } {
    // The environment is the nearer to who started the agent: what stands in the command cannot undo it.
    const intent = request.intent || intentOf(commandOf(request.argv));
    if (!intent) return { perCall: undefined, notes: [], refused: false };
    const parsed = parseIntent(intent);
    if (parsed.ok) return { perCall: parsed.intent, notes: [], refused: false };
    const refused = this.#deps.config().wrapper.badIntent === 'refuse';
    const notes = [intentLine(parsed, refused)];
    this.#deps.emit('bad-intent', { uid: peer.uid }, { word: parsed.word, reason: parsed.reason });
    return { perCall: undefined, notes, refused };
  }

  #admit(
    controller: Pick<Controller, 'pool' | 'short'>,
    wanted: Omit<Admitted, 'waitMs'>,
    answer: AnswerTo,
  ): Withdraw | undefined {
    const { queue, starting, unmanaged, onAdmitted } = this.#deps;
    const { admission } = this.#deps.config();
    const { limits } = wanted.asked;
    const since = nowMs();
    const admit = (now: number): void => {
      onAdmitted(now - since);
      starting.start({ ...wanted, waitMs: now - since }, answer);
    };
    // With so many before it, memory is not what the host lacks most: its limits have to do.
    if (queue.full) return void admit(since);
    const attempt = (now: number): boolean => {
      try {
        const decision = decideAdmission(
          { needBytes: limits.memoryHighBytes, waitedMs: now - since },
          controller.pool(),
          {
            memorySomePercent: hostPressure('memory')?.someAvg10 ?? 0,
            poolShort: controller.short && limits.class !== 'interactive',
          },
          now,
          admission,
        );
        if (decision.action === 'wait') return false;
        admit(now);
      } catch (error) {
        unmanaged.because(error, wanted.peer, wanted.notes, answer);
      }
      return true;
    };
    const turn = { rank: CALL_CLASSES.indexOf(limits.class), dueMs: since + admission.waitMs };
    return queue.enter(attempt, turn, since);
  }

  #emitNested(peer: PeerCred, request: RunRequest, root: CgroupRoot, path: string): void {
    const id = callIdIn(root, path);
    const around = id === undefined ? undefined : this.#deps.find(id);
    this.#deps.emit('nested', around === undefined ? { uid: peer.uid } : about(around), {
      ...(request.intent ? { intentIgnored: true } : {}),
    });
  }
}

/** Why a command cannot be placed by a daemon that is not root, with what to do about it. */
function outside(root: CgroupRoot, path: string): Error {
  return new Error(
    `it was started in ${path}, from where nobody but root may move it below ${root.procPath}; ` +
      'start the agent by systemd-run --user --scope',
  );
}
