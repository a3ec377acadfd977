// SPDX-License-Identifier: Apache-2.0
import { commandText } from '../command-text.ts';
import type { Config } from '../config/schema.ts';
import { goneError, readOfPeer } from '../kernel/held.ts';
import type { Native, PeerCred } from '../kernel/native.ts';
import { ancestors, hasItsNumber, processStat } from '../kernel/proc.ts';
import type { CgroupRoot } from '../kernel/tree.ts';
import type { Log } from '../log.ts';
import type { SessionRegistry } from '../session/registry.ts';
import { noteAgent } from './agent.ts';
import type { AgentTies } from './agent-ties.ts';
import type { AnswerTo, RunRequest } from './answer.ts';
import { Call } from './call.ts';
import { about, type Emit } from './call-events.ts';
import { whyNoSlot } from './call-slots.ts';
import { commandOf } from './command.ts';
import type { Controller } from './controller.ts';
import type { Endings } from './endings.ts';
import type { EscapeReport } from './escape-report.ts';
import { type Feedback, feedbackKey } from './feedback.ts';
import { originOf } from './learning.ts';
import type { Asked, LimitsResolver } from './limits-resolver.ts';
import type { Placing } from './placing.ts';
import { saveOrLog } from './saved-state.ts';
import type { SessionCgroups } from './session-cgroups.ts';
import type { Unmanaged } from './unmanaged.ts';

/** The longest name of an agent, and of a command, that is kept: both are what the caller says. */
const MAX_AGENT_CHARS = 64;
const MAX_COMMAND_CHARS = 1024;

export interface StartingDeps {
  readonly native: Pick<Native, 'pidfdSendSignal'>;
  readonly controller: Pick<Controller, 'add' | 'remove'> | undefined;
  readonly sessions: SessionRegistry;
  readonly cgroups: Pick<SessionCgroups, 'take'>;
  readonly limits: Pick<LimitsResolver, 'lines'>;
  readonly placing: Pick<Placing, 'issueToken'>;
  readonly endings: Pick<Endings, 'lose'>;
  readonly escapes: Pick<EscapeReport, 'add' | 'look'>;
  readonly ties: Pick<AgentTies, 'tie'>;
  readonly feedback: Pick<Feedback, 'started'>;
  readonly unmanaged: Unmanaged;
  readonly config: () => Config;
  readonly log: Log;
  readonly emit: Emit;
  readonly isClosed: () => boolean;
  /** Those that hold a slot. */
  readonly calls: () => Iterable<Call>;
  /** It has its cgroup, and will be answered. */
  readonly onMade: (call: Call) => void;
}

/** A command that need wait no longer. */
export interface Admitted {
  readonly peer: PeerCred;
  readonly request: RunRequest;
  /** Whether its wrapper forks it into its cgroup; else it is moved there. */
  readonly clone: boolean;
  readonly root: CgroupRoot;
  readonly asked: Asked;
  readonly waitMs: number;
  /** What its agent is to be told in any case. */
  readonly notes: readonly string[];
}

class NoSlotError extends Error {}

/** Makes calls of commands that are admitted, and answers their wrappers. */
export class Starting {
  readonly #deps: StartingDeps;

  constructor(deps: StartingDeps) {
    this.#deps = deps;
  }

  start(admitted: Admitted, answer: AnswerTo): void {
    const { peer, request, clone, notes } = admitted;
    const { placing, endings, escapes, unmanaged } = this.#deps;
    let call: Call;
    try {
      call = this.#make(admitted);
    } catch (error) {
      unmanaged.because(error, peer, notes, answer, error instanceof NoSlotError ? 'limit' : undefined);
      return;
    }
    let taken: boolean;
    if (clone) {
      escapes.add(call);
      taken = answer({ kind: 'clone', call, notes });
    } else {
      // What is moved by and by has not left before it has come.
      const token = placing.issueToken(call);
      taken = answer({ kind: 'move', call, token, notes });
    }
    if (taken) setImmediate(() => this.#afterStart(call, request));
    else endings.lose(call);
  }

  /** @throws Error why there is no cgroup for it; nothing is left behind then. */
  #make({ peer, request, root, asked, waitMs }: Admitted): Call {
    const { controller, sessions, cgroups } = this.#deps;
    const wrapper = readOfPeer(this.#deps.native, peer, processStat);
    if (controller === undefined || wrapper === undefined) throw goneError('the wrapper');
    const config = this.#deps.config();
    const refused = whyNoSlot(this.#deps.calls(), wrapper, peer.uid, config.admission.perUid);
    if (refused !== undefined) throw new NoSlotError(refused);
    const agent = request.agent?.slice(0, MAX_AGENT_CHARS) ?? null;
    const parent = processStat(wrapper.ppid);
    const session = sessions.join(peer.uid, request.session, parent, agent);
    const lines = this.#deps.limits.lines(asked);
    let call: Call | undefined;
    try {
      const { sessionCgroup, cgroup } = cgroups.take(root, session, { limits: asked.limits, lines });
      call = new Call({
        session,
        sessionCgroup,
        cgroup,
        procPath: `${root.procPath}/${session.name}/${cgroup.name}`,
        limits: asked.limits,
        declared: asked.declared,
        lines,
        ceilingBytes: asked.ceilingBytes,
        command: commandText(commandOf(request.argv), config.log.commands).slice(0, MAX_COMMAND_CHARS),
        agent,
        hugePages: config.enforcement.hugePages,
        wrapper: { pid: wrapper.pid, startTicks: wrapper.startTicks },
        admissionWaitMs: waitMs,
      });
      for (const reason of asked.clamped) call.record({ action: 'clamp', reason }, call.startedAtMs);
      // Before the answer: if the agent or this daemon is killed, the next one must know that nobody waits for the call.
      if (parent !== undefined && parent.pid > 1) noteAgent(call, [parent], Boolean(request.session));
      controller.add(call);
    } catch (error) {
      if (call !== undefined) {
        controller.remove(call);
        call.sessionCgroup.discard(call.cgroup);
      }
      sessions.endIfOver(session);
      throw error;
    }
    saveOrLog(call, this.#deps.log);
    this.#deps.onMade(call);
    sessions.callStarted(session);
    return call;
  }

  /** What can wait until the command runs. */
  #afterStart(call: Call, request: RunRequest): void {
    if (this.#deps.isClosed() || call.phase === 'gone') return;
    const { sessions, escapes, ties, feedback, log } = this.#deps;
    try {
      call.origin = originOf(request, this.#deps.config().log.commands);
      call.feedbackKey = feedbackKey(call.session.uid, call.session.id, commandOf(request.argv));
      feedback.started(call.feedbackKey);
      // A shell stands between, or nobody is left.
      if (call.agentProcess === null) {
        const above = ancestors(call.wrapper.pid);
        noteAgent(call, hasItsNumber(call.wrapper) ? above : [], Boolean(request.session));
      }
    } catch (error) {
      log.error({ err: error, call: call.id }, 'owner of call not known');
    }
    ties.tie(call);
    escapes.look(call);
    saveOrLog(call, log);
    this.#deps.emit('call-start', about(call), {
      command: call.command,
      highBytes: call.limits.memoryHighBytes,
      maxBytes: call.limits.memoryMaxBytes,
      class: call.limits.class,
    });
    call.sessionCgroup.prepare();
    sessions.endIfOver(call.session);
  }
}
