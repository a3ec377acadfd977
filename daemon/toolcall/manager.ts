// SPDX-License-Identifier: Apache-2.0
import type { Config } from '../config/schema.ts';
import type { CallRecord } from '../control/types.ts';
import type { Cgroup } from '../kernel/cgroup.ts';
import type { ContainerRoots } from '../kernel/container-roots.ts';
import type { Enforcer, EnforcerEvents, OomEvent, StopEvent } from '../kernel/enforcer.ts';
import { readOfPeer } from '../kernel/held.ts';
import type { Native, PeerCred } from '../kernel/native.ts';
import { isSameProcess, processStat } from '../kernel/proc.ts';
import type { CgroupRoot } from '../kernel/tree.ts';
import type { Log } from '../log.ts';
import type { HostSettings } from '../policy/host.ts';
import type { Declared } from '../policy/limits.ts';
import type { Session, SessionRegistry } from '../session/registry.ts';
import { AdmissionQueue } from './admission-queue.ts';
import { AgentTies } from './agent-ties.ts';
import type { AnswerTo, RunRequest } from './answer.ts';
import type { Call } from './call.ts';
import { about, type Emit } from './call-events.ts';
import { CallRoots } from './call-roots.ts';
import type { Controller } from './controller.ts';
import { EndReport } from './end-report.ts';
import { Endings } from './endings.ts';
import { EscapeReport } from './escape-report.ts';
import { Feedback, feedbackKey } from './feedback.ts';
import { Intake } from './intake.ts';
import type { CallClass } from './intent.ts';
import type { Origin } from './learning.ts';
import { LimitsResolver } from './limits-resolver.ts';
import { Placing } from './placing.ts';
import { reclassAll } from './reclass.ts';
import type { Ending } from './record.ts';
import type { CallLimits, SessionCgroup } from './session-cgroup.ts';
import { SessionCgroups } from './session-cgroups.ts';
import { Starting } from './starting.ts';
import { Unmanaged, type UnmanagedReason } from './unmanaged.ts';
import { WrapperLookout } from './wrapper-lookout.ts';

export interface ManagerDeps {
  readonly native: Native;
  /** Undefined on a host without a usable cgroup v2: then every command runs unmanaged. */
  readonly root: CgroupRoot | undefined;
  /** Undefined where calls from containers get their cgroups below that root too. */
  readonly containers?: ContainerRoots | undefined;
  /** The daemon has no more rights than its callers: it works in what was delegated to their user. */
  readonly cooperative: boolean;
  readonly enforcer: Enforcer | undefined;
  readonly controller: Controller | undefined;
  readonly sessions: SessionRegistry;
  /** The class that a session's turns show; undefined: none have been seen. */
  readonly classOf: (uid: number, id: string) => CallClass | undefined;
  readonly config: () => Config;
  readonly host: () => HostSettings;
  readonly log: Log;
  readonly emit: Emit;
  readonly onUnmanaged: (reason: UnmanagedReason) => void;
  readonly onAdmitted: (waitMs: number) => void;
  /** @param origin by what runs of its command are known again, if anything may be kept of it. */
  readonly onFinished: (record: CallRecord, origin: Origin | null) => void;
  /** memory.high of a command by its earlier runs, for one of which nobody says anything. */
  readonly learnedHighBytes: (uid: number, origin: () => Origin | null) => number | undefined;
}

/**
 * The life of tool calls: knows which there are, and hands each on to its next step. A request comes in (intake.ts) and may
 * have to wait (admission-queue.ts), is made a call and answered (starting.ts), moved where it was not forked (placing.ts),
 * held to its limits (controller.ts), and ends (endings.ts).
 */
export class CallManager implements EnforcerEvents {
  readonly #deps: ManagerDeps;
  /** Calls that have not ended, and those whose processes live on; by their ids. */
  readonly #calls = new Map<string, Call>();
  readonly #feedback = new Feedback();
  readonly #queue = new AdmissionQueue();
  readonly #limits: LimitsResolver;
  readonly #cgroups: SessionCgroups;
  readonly #escapes: EscapeReport;
  readonly #placing: Placing;
  readonly #ties: AgentTies;
  readonly #lookout: WrapperLookout;
  readonly #endings: Endings;
  readonly #intake: Intake;
  #closed = false;

  constructor(deps: ManagerDeps) {
    this.#deps = deps;
    const feedback = this.#feedback;
    const unmanaged = new Unmanaged(deps);
    const roots = new CallRoots(deps);
    const limits = new LimitsResolver(deps);
    const cgroups = new SessionCgroups({
      ...deps,
      calls: () => this.#calls.values(),
      usual: (uid) => limits.usual(uid),
    });
    const escapes = new EscapeReport(deps);
    const placing = new Placing({ ...deps, roots, escapes });
    const ties = new AgentTies(deps.sessions, deps.log);
    const lookout = new WrapperLookout({ ...deps, onLost: (call) => this.#endings.lose(call) });
    const endings = new Endings({
      ...deps,
      cgroups,
      escapes,
      report: new EndReport({ ...deps, feedback }),
      onEnded: (call) => {
        placing.forgetToken(call);
        lookout.stop(call);
      },
      onAnswered: (call) => ties.untie(call),
      onGone: (call) => this.#calls.delete(call.id),
    });
    const starting = new Starting({
      ...deps,
      ...{ cgroups, limits, placing, endings, escapes, ties, feedback, unmanaged },
      isClosed: () => this.#closed,
      calls: () => this.#calls.values(),
      onMade: (call) => this.#calls.set(call.id, call),
    });
    this.#intake = new Intake({
      ...deps,
      ...{ roots, limits, starting, unmanaged },
      queue: this.#queue,
      find: (id) => this.#calls.get(id),
    });
    this.#limits = limits;
    this.#cgroups = cgroups;
    this.#escapes = escapes;
    this.#placing = placing;
    this.#ties = ties;
    this.#lookout = lookout;
    this.#endings = endings;
  }

  /** Calls that have not ended, and those whose processes live on. */
  calls(): IterableIterator<Call> {
    return this.#calls.values();
  }

  get waiting(): number {
    return this.#queue.length;
  }

  /** The longest that a call waits for admission. */
  get admissionMs(): number {
    return this.#deps.config().admission.waitMs;
  }

  /**
   * A wrapper asks to run a command.
   * @param answer called once, during this call if it can be answered at once; false from it means
   *   that the wrapper has gone.
   * @returns undefined if it was answered at once, else what withdraws the request.
   */
  start(peer: PeerCred, request: RunRequest, answer: AnswerTo): (() => void) | undefined {
    return this.#intake.take(peer, request, answer);
  }

  /**
   * The child of a wrapper that cannot fork into a cgroup asks to be moved into its own.
   * @throws Error why it was not.
   */
  place(peer: PeerCred, token: string): Promise<void> {
    return this.#placing.place(peer, token);
  }

  /** The wrapper started its command before the answer came: its whole tree is moved. */
  placeLate(call: Call): void {
    this.#placing.placeLate(call);
  }

  /** A wrapper that had a call before the daemon was restarted. Undefined: not known, or not its own. */
  rejoin(peer: PeerCred, id: string): Call | undefined {
    const call = this.#calls.get(id);
    // Its connection can outlive it: in a child, while its number becomes that of somebody's wrapper.
    const stat = readOfPeer(this.#deps.native, peer, processStat);
    if (call === undefined || stat === undefined || peer.uid !== call.session.uid) return undefined;
    if (!isSameProcess(stat, call.wrapper)) return undefined;
    // From here on its connection tells: it may end, and report that, before its last word is read.
    this.#lookout.stop(call);
    return call;
  }

  /**
   * The command has ended.
   * @param answer takes the lines that the agent should read, none if there is nothing to tell. Called
   *   at once, or as soon as it is clear whether the command left processes behind.
   */
  end(call: Call, ending: Ending, answer?: (lines: readonly string[]) => void): void {
    this.#endings.end(call, ending, answer);
  }

  /** What there is to tell of the last call of this command, if it has just ended. */
  feedback(uid: number, session: string, command: string): string | undefined {
    return this.#feedback.of(feedbackKey(uid, session, command));
  }

  /** The connection of a live call has closed: the wrapper was killed, or it will come back. */
  wrapperGone(call: Call): void {
    this.#lookout.watch(call);
  }

  stop(event: StopEvent): void {
    this.#deps.controller?.onStop(event);
  }

  oom(event: OomEvent): void {
    const call = this.#deps.controller?.find(event.cgroupId);
    if (call === undefined) return;
    this.#deps.emit('oom', about(call), { pid: event.pid, comm: event.comm });
  }

  emptied(cgroupId: number): void {
    const call = this.#deps.controller?.find(cgroupId);
    if (call !== undefined) this.#endings.emptied(call);
  }

  /** The last owner of a session and its last call have ended: nothing of it may stay. */
  sessionEnded(session: Session): void {
    for (const call of this.#calls.values()) {
      if (call.session !== session) continue;
      this.#deps.controller?.kill(call, 'session-end', 'its session ended');
      this.#endings.tidy(call);
    }
    this.#cgroups.removeIfOver(session);
    this.#deps.emit('session-end', { session: session.id, uid: session.uid });
  }

  /**
   * Puts back a call that an earlier daemon left.
   * @throws Error if it cannot be held to its limits; nothing of it is known here then.
   */
  restore(call: Call, lingering: boolean, frozen: boolean): void {
    const { controller, sessions } = this.#deps;
    if (lingering) call.phase = 'lingering';
    call.sessionCgroup.guarantee(call.limits);
    try {
      controller?.add(call);
    } catch (error) {
      controller?.remove(call);
      throw error;
    }
    this.#calls.set(call.id, call);
    this.#cgroups.weigh(call.session, call.sessionCgroup);
    if (!lingering) {
      sessions.callStarted(call.session);
      this.#ties.tie(call);
      this.#escapes.add(call);
      // Its wrapper reconnects within a second; if it has died meanwhile nobody will report the end.
      this.wrapperGone(call);
    }
    controller?.onFound(call, frozen);
  }

  /** Lets a cgroup go for good that an earlier daemon left and this one cannot take over. */
  disown(cgroup: Cgroup, procPath: string): void {
    this.#deps.controller?.disown(cgroup, procPath);
  }

  /** The cgroup of a session, made if it is not there. */
  openSession(root: CgroupRoot, name: string, uid: number): SessionCgroup {
    return this.#cgroups.open(root, name, uid);
  }

  /** Puts back the cgroup of a session that an earlier daemon left. */
  keep(cgroup: SessionCgroup): void {
    this.#cgroups.keep(cgroup);
  }

  /** The directories of a session: one, and another in each container that it runs calls in. */
  directoriesOf(session: Session): string[] {
    return this.#cgroups.of(session).map(({ path }) => path);
  }

  /** A session has shown another class: its calls that run get the weights of it, as those to come will. */
  reclass(key: string, sessionClass: CallClass): void {
    const { controller, emit, log, sessions } = this.#deps;
    const session = sessions.find(key);
    if (session === undefined) return;
    const calls = [...this.#calls.values()].filter((call) => call.session === session);
    const wantedOf = (declared: Declared) => this.#limits.inClass(declared, session.uid, sessionClass);
    const changed = reclassAll(calls, wantedOf, log);
    if (changed > 0) controller?.reordered();
    for (const sessionCgroup of this.#cgroups.of(session)) this.#cgroups.weigh(session, sessionCgroup);
    emit('session-class', { session: session.id, uid: session.uid }, { class: sessionClass, calls: changed });
  }

  /** Leaves calls as a daemon that stops should: not frozen, not throttled, adoptable. */
  close(): void {
    this.#queue.close();
    this.#endings.close(this.#calls.values());
    this.#closed = true;
    this.#escapes.close();
    this.#lookout.close();
    this.#ties.close();
    for (const call of this.#calls.values()) {
      this.#deps.controller?.release(call);
      call.cgroup.close();
    }
    this.#cgroups.close();
    this.#calls.clear();
    this.#placing.close();
  }

  /** What a call of this user gets of which nobody says anything: the spares are made with it. */
  usual(uid: number): CallLimits {
    return this.#limits.usual(uid);
  }
}
