// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
import { nowMs } from '../clock.ts';
import { commandText } from '../command-text.ts';
import type { Config } from '../config/schema.ts';
import type { CallRecord } from '../control/types.ts';
import { errnoOf, messageOf } from '../errors.ts';
import { attach, canAttach } from '../kernel/attach.ts';
import { containerCeiling } from '../kernel/container.ts';
import type { ContainerRoots } from '../kernel/container-roots.ts';
import { mayMove } from '../kernel/delegation.ts';
import type { Enforcer, EnforcerEvents, OomEvent, StopEvent } from '../kernel/enforcer.ts';
import { files } from '../kernel/files.ts';
import { hostPressure } from '../kernel/host.ts';
import type { Native, PeerCred } from '../kernel/native.ts';
import { ancestors, cgroupPathOf, descendants, isAlive, processStat } from '../kernel/proc.ts';
import { ProcessEnds } from '../kernel/process-ends.ts';
import type { CgroupRoot } from '../kernel/tree.ts';
import type { Log } from '../log.ts';
import { decideAdmission } from '../policy/admission.ts';
import type { HostSettings } from '../policy/host.ts';
import { type Declared, minCeiling, type Resolved, resolveIntent } from '../policy/limits.ts';
import { linesFor } from '../policy/lines.ts';
import { intentLine } from '../policy/report.ts';
import { matchRule } from '../policy/rules.ts';
import { MAX_ID, type Session, type SessionRegistry } from '../session/registry.ts';
import { agentProcessOf, ownersOf } from './agent.ts';
import { Call } from './call.ts';
import { commandOf, intentOf } from './command.ts';
import type { Controller } from './controller.ts';
import { type Escaped, EscapeWatch } from './escape.ts';
import { Feedback, feedbackKey } from './feedback.ts';
import { Guarantees } from './guarantees.ts';
import { type CallClass, type Intent, parseIntent } from './intent.ts';
import { type Origin, originOf } from './learning.ts';
import { reclass } from './reclass.ts';
import { type Ending, finish, finishWithoutFigures } from './record.ts';
import { saveCall, saveSession } from './saved-state.ts';
import { type CallLimits, SessionCgroup } from './session-cgroup.ts';

/** Why a command ran without a cgroup of its own; each has a counter. */
export type UnmanagedReason = 'nested' | 'outside' | 'degraded' | 'error' | 'gone';

/** What the wrapper is told to do. Every note is one line for the agent. */
export type Answer =
  | { readonly kind: 'none'; readonly notes: readonly string[] }
  | { readonly kind: 'refuse'; readonly code: number; readonly notes: readonly string[] }
  | { readonly kind: 'clone'; readonly call: Call; readonly notes: readonly string[] }
  | { readonly kind: 'move'; readonly call: Call; readonly token: string; readonly notes: readonly string[] };

/** What the wrapper asks for; everything about who it is comes from the kernel. */
export interface RunRequest {
  readonly argv: readonly string[];
  readonly cwd?: string | undefined;
  /** How many directories above cwd its repository begins. */
  readonly top?: number | undefined;
  readonly intent?: string | undefined;
  readonly session?: string | undefined;
  readonly agent?: string | undefined;
  /** The wrapper can fork into a cgroup it is given. */
  readonly clone?: boolean | undefined;
}

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
  readonly emit: (
    kind: string,
    about: { session?: string; call?: string; uid?: number },
    detail?: object,
  ) => void;
  readonly onUnmanaged: (reason: UnmanagedReason) => void;
  readonly onAdmitted: (waitMs: number) => void;
  /** @param origin by what runs of its command are known again, if anything may be kept of it. */
  readonly onFinished: (record: CallRecord, origin: Origin | null) => void;
  /** memory.high of a command by its earlier runs, for one of which nobody says anything. */
  readonly learnedHighBytes: (uid: number, origin: () => Origin | null) => number | undefined;
}

/** The exit status of a wrapper that may not run its command (env(1) and timeout(1) use it alike). */
const REFUSED = 125;
/**
 * Calls that may wait for admission at a time. Each waits 5 s at most, so more would mean that over
 * 200 calls a second arrive on a host that has no memory left.
 */
const MAX_WAITING = 1024;
/** How often the pool is looked at for calls that wait. */
const ADMISSION_TICK_MS = 50;

/**
 * How long an ended command's last processes may take to die before they count as left behind. The
 * members of a pipeline end within microseconds of each other; the wrapper waits 50 ms for its answer.
 */
const DYING_MS = 20;

/** What failed for want of descriptors or memory, or because a task is still exiting, is tried again. */
const RETRY_MS = 1000;

/** The longest name of an agent, and of a command, that is kept: both are what the caller says. */
const MAX_AGENT_CHARS = 64;
const MAX_COMMAND_CHARS = 1024;

/** A call's limits, and who said what of them. */
type Asked = Resolved & { readonly declared: Declared };

interface Waiting {
  /** @returns true if it needs to wait no longer. */
  readonly attempt: (now: number) => boolean;
}

/** The life of tool calls: admission, placement, the end and what is left behind. */
export class CallManager implements EnforcerEvents {
  readonly #deps: ManagerDeps;
  readonly #ends: ProcessEnds;
  readonly #cgroups = new Map<string, SessionCgroup>();
  readonly #byId = new Map<string, Call>();
  readonly #tokens = new Map<string, Call>();
  readonly #ending = new Map<Call, () => void>();
  /** Of live calls without a connection: what ends the look-out for their wrapper's end. */
  readonly #lookouts = new Map<Call, () => void>();
  /** Of live calls whose agent is known: what unties them from it. */
  readonly #ties = new Map<Call, () => void>();
  readonly #feedback = new Feedback();
  readonly #waiting: Waiting[] = [];
  readonly #escapes: EscapeWatch;
  #waitTimer: NodeJS.Timeout | undefined;
  readonly #guarantees: Guarantees | undefined;
  #closed = false;

  constructor(deps: ManagerDeps) {
    this.#deps = deps;
    this.#ends = new ProcessEnds(deps.native);
    this.#guarantees =
      deps.root &&
      new Guarantees(
        deps.root.cgroup,
        () => deps.config().pool.guarantee,
        (error) => deps.log.warn({ err: error }, 'guarantee not in force'),
      );
    this.#escapes = new EscapeWatch((call, escaped) => this.#escaped(call, escaped));
  }

  /** Calls that have not ended, and those whose processes live on. */
  calls(): IterableIterator<Call> {
    return this.#byId.values();
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /**
   * A wrapper asks to run a command.
   * @param answer called once, during this call if it can be answered at once; false from it means
   *   that the wrapper has gone.
   * @returns undefined if it was answered at once, else what withdraws the request.
   */
  start(peer: PeerCred, request: RunRequest, answer: (answer: Answer) => boolean): (() => void) | undefined {
    try {
      return this.#start(peer, request, answer);
    } catch (error) {
      this.#unplaced(peer, error, [], answer);
      return undefined;
    }
  }

  #start(peer: PeerCred, request: RunRequest, answer: (answer: Answer) => boolean): (() => void) | undefined {
    const { root, controller } = this.#deps;
    const none = (reason: UnmanagedReason): undefined => {
      this.#deps.onUnmanaged(reason);
      answer({ kind: 'none', notes: [] });
    };
    if (root === undefined || controller === undefined) return none('degraded');
    const path = peer.pidfd < 0 ? undefined : cgroupPathOf(peer.pid);
    if (path === undefined) return none('gone');
    const inRoot = this.#rootAround(path);
    if (inRoot !== undefined) {
      const around = this.#callOfPath(inRoot, path);
      this.#deps.emit('nested', around === undefined ? { uid: peer.uid } : about(around), {
        ...(request.intent ? { intentIgnored: true } : {}),
      });
      return none('nested');
    }
    const found = this.#rootFor(peer, path);
    if (!(found instanceof Promise)) return this.#startBelow(found ?? root, path, peer, request, answer);
    // The first call from a container, for which that is prepared: a wait like that for admission.
    let withdraw: (() => void) | undefined;
    let withdrawn = false;
    found
      .then((target) => {
        if (!withdrawn) withdraw = this.#startBelow(target ?? root, path, peer, request, answer);
      })
      .catch((error: unknown) => this.#unplaced(peer, error, [], answer));
    return () => {
      withdrawn = true;
      withdraw?.();
    };
  }

  /** @param path of the caller's cgroup. */
  #startBelow(
    target: CgroupRoot,
    path: string,
    peer: PeerCred,
    request: RunRequest,
    answer: (answer: Answer) => boolean,
  ): (() => void) | undefined {
    const { cooperative, controller } = this.#deps;
    if (controller === undefined) return;
    const inside = !cooperative || mayMove(target.mount, target.procPath, path, peer.uid);
    if (!inside && !canAttach(target.procPath)) {
      this.#unplaced(peer, outside(target, path), [], answer, 'outside');
      return;
    }

    const config = this.#deps.config();
    const notes: string[] = [];
    let perCall: Intent | undefined;
    // The environment is the nearer to who started the agent: what stands in the command cannot undo it.
    const intent = request.intent || intentOf(commandOf(request.argv));
    if (intent) {
      const parsed = parseIntent(intent);
      if (parsed.ok) perCall = parsed.intent;
      else {
        const refused = config.wrapper.badIntent === 'refuse';
        notes.push(intentLine(parsed, refused));
        this.#deps.emit('bad-intent', { uid: peer.uid }, { word: parsed.word, reason: parsed.reason });
        if (refused) {
          answer({ kind: 'refuse', code: REFUSED, notes });
          return;
        }
      }
    }
    const resolved = this.#resolve(peer, request, path, perCall);
    // Who may move there may fork into it too, which does not wait for the kernel.
    const clone = inside && (cooperative || request.clone === true);
    const since = nowMs();
    const admit = (now: number): void => {
      this.#deps.onAdmitted(now - since);
      this.#place(peer, { ...request, clone }, target, resolved, now - since, notes, answer);
    };
    // With so many before it, memory is not what the host lacks most: its limits have to do.
    if (this.#waiting.length >= MAX_WAITING) return void admit(since);
    const attempt = (now: number): boolean => {
      try {
        const decision = decideAdmission(
          { needBytes: resolved.limits.memoryHighBytes, waitedMs: now - since },
          controller.pool(),
          {
            memorySomePercent: hostPressure('memory')?.someAvg10 ?? 0,
            poolShort: controller.short && resolved.limits.class !== 'interactive',
          },
          now,
          config.admission,
        );
        if (decision.action === 'wait') return false;
        admit(now);
      } catch (error) {
        this.#unplaced(peer, error, notes, answer);
      }
      return true;
    };
    // Behind others it waits its turn, even if it would fit: small calls must not starve a large one.
    if (this.#waiting.length === 0 && attempt(since)) return;
    const waiting: Waiting = { attempt };
    this.#waiting.push(waiting);
    this.#waitTimer ??= setInterval(() => this.#admitWaiting(), ADMISSION_TICK_MS);
    return () => {
      const index = this.#waiting.indexOf(waiting);
      if (index >= 0) this.#waiting.splice(index, 1);
    };
  }

  /**
   * The child of a wrapper that cannot fork into a cgroup asks to be moved into its own.
   * @throws Error why it was not.
   */
  async place(peer: PeerCred, token: string): Promise<void> {
    const call = this.#tokens.get(token);
    if (call === undefined || call.phase !== 'live') throw new Error('no such call');
    if (peer.uid !== call.session.uid) throw new Error('not your call');
    this.#forgetToken(call);
    if (peer.pidfd < 0) throw new Error('already gone');
    try {
      // Still the process that connected, and not one that got its pid.
      this.#deps.native.pidfdSendSignal(peer.pidfd, 0);
      // Waits for an RCU grace period when it comes alone: 12 to 19 ms at the median, 7.2 and 6.12.
      await this.#bring(peer.pid, call);
      this.#watchEscapes(call);
    } catch (error) {
      this.#deps.onUnmanaged(errnoOf(error) === 'ESRCH' ? 'gone' : 'error');
      this.#deps.log.error({ err: error, call: call.id }, 'process not placed');
      this.#deps.emit('unmanaged', about(call), { error: messageOf(error) });
      throw error;
    }
  }

  /** The wrapper started its command before the answer came: its whole tree is moved. */
  placeLate(call: Call): void {
    this.#forgetToken(call);
    // Until it is there, what is not has not left.
    this.#escapes.remove(call);
    this.#moveTree(call)
      .catch((error: unknown) => {
        this.#deps.log.error({ err: error, call: call.id }, 'command not moved');
        this.#deps.emit('unmanaged', about(call), { error: messageOf(error) });
      })
      .finally(() => this.#watchEscapes(call));
  }

  /** A wrapper that had a call before the daemon was restarted. Undefined: not known, or not its own. */
  rejoin(peer: PeerCred, id: string): Call | undefined {
    const call = this.#byId.get(id);
    const stat = processStat(peer.pid);
    if (call === undefined || stat === undefined || peer.pidfd < 0) return undefined;
    if (stat.pid !== call.wrapper.pid || stat.startTicks !== call.wrapper.startTicks) return undefined;
    // From here on its connection tells: it may end, and report that, before its last word is read.
    this.#stopLookout(call);
    return call;
  }

  /**
   * The command has ended.
   * @param answer takes the lines that the agent should read, none if there is nothing to tell. Called
   *   at once, or as soon as it is clear whether the command left processes behind.
   */
  end(call: Call, ending: Ending, answer: (lines: readonly string[]) => void = () => {}): void {
    if (call.phase !== 'live') {
      answer([]);
      return;
    }
    this.#lookForEscapes(call);
    call.phase = 'ending';
    const settle = (): void => {
      clearTimeout(timer);
      this.#ending.delete(call);
      answer(this.#finish(call, ending));
    };
    const timer = setTimeout(settle, DYING_MS);
    this.#ending.set(call, settle);
    if (!this.#populated(call)) settle();
  }

  /** What there is to tell of the last call of this command, if it has just ended. */
  feedback(uid: number, session: string, command: string): string | undefined {
    return this.#feedback.of(feedbackKey(uid, session, command));
  }

  /** The connection of a live call has closed: the wrapper was killed, or it will come back. */
  wrapperGone(call: Call): void {
    if (this.#closed || call.phase !== 'live' || this.#lookouts.has(call)) return;
    let stop: (() => void) | undefined;
    try {
      stop = this.#ends.watch(call.wrapper, () => {
        this.#lookouts.delete(call);
        this.#lose(call);
      });
    } catch (error) {
      this.#deps.log.error({ err: error, call: call.id }, 'wrapper not watched');
      const timer = setTimeout(() => {
        this.#lookouts.delete(call);
        this.wrapperGone(call);
      }, RETRY_MS);
      stop = () => clearTimeout(timer);
    }
    if (stop === undefined) this.#lose(call);
    else this.#lookouts.set(call, stop);
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
    if (call === undefined) return;
    if (call.phase === 'live') this.#lookForEscapes(call);
    if (call.phase === 'lingering') this.#tidy(call);
    else this.#ending.get(call)?.();
  }

  /** The last owner of a session and its last call have ended: nothing of it may stay. */
  sessionEnded(session: Session): void {
    for (const call of this.#byId.values()) {
      if (call.session !== session) continue;
      this.#deps.controller?.kill(call, 'session-end', 'its session ended');
      this.#tidy(call);
    }
    this.#removeIfOver(session);
    this.#deps.emit('session-end', { session: session.id, uid: session.uid });
  }

  /** Puts back a call that an earlier daemon left. */
  restore(call: Call, lingering: boolean, frozen: boolean): void {
    this.#byId.set(call.id, call);
    if (lingering) call.phase = 'lingering';
    call.sessionCgroup.guarantee(call.limits);
    this.#weigh(call.session, call.sessionCgroup);
    this.#deps.controller?.add(call);
    if (!lingering) {
      this.#deps.sessions.callStarted(call.session);
      this.#tie(call);
      this.#watchEscapes(call);
      // Its wrapper reconnects within a second; if it has died meanwhile nobody will report the end.
      this.wrapperGone(call);
    }
    this.#deps.controller?.onFound(call, frozen);
  }

  /** The cgroup of a session, made if it is not there. */
  openSession(root: CgroupRoot, name: string, uid: number): SessionCgroup {
    const guarantees = root === this.#deps.root ? this.#guarantees : undefined;
    return new SessionCgroup(root, name, this.usual(uid), guarantees);
  }

  /** Puts back the cgroup of a session that an earlier daemon left. */
  keep(cgroup: SessionCgroup): void {
    this.#cgroups.set(cgroup.procPath, cgroup);
  }

  /** The directories of a session: one, and another in each container that it runs calls in. */
  directoriesOf(session: Session): string[] {
    return this.#cgroupsOf(session).map(({ path }) => path);
  }

  /** A session has shown another class: its calls that run get the weights of it, as those to come will. */
  reclass(key: string, sessionClass: CallClass): void {
    const { log, sessions } = this.#deps;
    const session = sessions.find(key);
    if (session === undefined) return;
    const { classes } = this.#deps.config();
    const { defaults, guessedHighBytes, ceilingFor } = this.#deps.host();
    const ceiling = ceilingFor(session.uid);
    const living = [...this.#byId.values()].filter((call) => call.session === session);
    let changed = 0;
    for (const call of living) {
      if (call.declared === null) continue;
      const layers = { ...call.declared, sessionClass, classes, defaults, guessedHighBytes, ceiling };
      try {
        if (!reclass(call, resolveIntent(layers).limits, call.sessionCgroup.root.controllers)) continue;
        changed += 1;
        call.sessionCgroup.guarantee(call.limits);
        this.#save(call);
      } catch (error) {
        log.error({ err: error, call: call.id }, 'class of call not changed');
      }
    }
    if (changed > 0) this.#deps.controller?.reordered();
    for (const sessionCgroup of this.#cgroupsOf(session)) this.#weigh(session, sessionCgroup);
    this.#deps.emit(
      'session-class',
      { session: session.id, uid: session.uid },
      { class: sessionClass, calls: changed },
    );
  }

  /** Leaves calls as a daemon that stops should: not frozen, not throttled, adoptable. */
  close(): void {
    clearInterval(this.#waitTimer);
    this.#waiting.length = 0;
    for (const settle of [...this.#ending.values()]) settle();
    for (const call of [...this.#byId.values()]) this.#tidy(call);
    this.#closed = true;
    this.#escapes.close();
    for (const call of [...this.#lookouts.keys()]) this.#stopLookout(call);
    for (const call of [...this.#ties.keys()]) this.#untie(call);
    for (const call of this.#byId.values()) {
      this.#deps.controller?.release(call);
      call.cgroup.close();
    }
    for (const cgroup of this.#cgroups.values()) cgroup.close();
    this.#byId.clear();
    this.#tokens.clear();
    this.#cgroups.clear();
  }

  /** What a call of this user gets of which nobody says anything: the spares are made with it. */
  usual(uid: number): CallLimits {
    const { classes } = this.#deps.config();
    const { defaults, guessedHighBytes, ceilingFor } = this.#deps.host();
    const resolved = resolveIntent({ classes, defaults, guessedHighBytes, ceiling: ceilingFor(uid) });
    return { limits: resolved.limits, lines: this.#lines(resolved) };
  }

  #callOfPath(root: CgroupRoot, path: string): Call | undefined {
    if (!path.startsWith(`${root.procPath}/`)) return undefined;
    const id = path.slice(root.procPath.length + 1).split('/')[1];
    return id === undefined ? undefined : this.#byId.get(id);
  }

  #resolve(peer: PeerCred, request: RunRequest, path: string, perCall: Intent | undefined): Asked {
    const config = this.#deps.config();
    const host = this.#deps.host();
    const command = commandOf(request.argv);
    const container = containerCeiling(this.#deps.root?.path ?? '', this.#deps.root?.procPath ?? '', path);
    const ceiling = host.ceilingFor(peer.uid);
    const rule = matchRule(config.rules, command)?.intent;
    const agent = request.agent === undefined ? undefined : config.agents[request.agent]?.intent;
    const declared: Declared = {
      ...(perCall === undefined ? {} : { perCall }),
      ...(rule === undefined ? {} : { rule }),
      ...(agent === undefined ? {} : { agent }),
    };
    const { session } = request;
    const resolved = resolveIntent({
      ...declared,
      sessionClass: session ? this.#deps.classOf(peer.uid, session.slice(0, MAX_ID)) : undefined,
      classes: config.classes,
      defaults: host.defaults,
      guessedHighBytes: host.guessedHighBytes,
      learnedHighBytes: this.#deps.learnedHighBytes(peer.uid, () => originOf(request, config.log.commands)),
      ceiling: container === undefined ? ceiling : minCeiling(ceiling, { memoryMaxBytes: container }),
    });
    return { ...resolved, declared };
  }

  #place(
    peer: PeerCred,
    request: RunRequest,
    root: CgroupRoot,
    resolved: Asked,
    admissionWaitMs: number,
    notes: readonly string[],
    answer: (answer: Answer) => boolean,
  ): void {
    let call: Call;
    try {
      call = this.#make(peer, request, root, resolved, admissionWaitMs);
    } catch (error) {
      this.#unplaced(peer, error, notes, answer);
      return;
    }
    const token = request.clone ? undefined : randomBytes(16).toString('hex');
    if (token !== undefined) {
      call.token = token;
      this.#tokens.set(token, call);
    }
    // What is moved by and by has not left before it has come.
    else this.#watchEscapes(call);
    const taken = answer(
      token === undefined ? { kind: 'clone', call, notes } : { kind: 'move', call, token, notes },
    );
    if (taken) setImmediate(() => this.#afterStart(call, request));
    else this.#lose(call);
  }

  /** The command runs all the same, and says why without limits. */
  #unplaced(
    peer: PeerCred,
    error: unknown,
    notes: readonly string[],
    answer: (answer: Answer) => boolean,
    reason: UnmanagedReason = errnoOf(error) === 'ESRCH' ? 'gone' : 'error',
  ): void {
    this.#deps.onUnmanaged(reason);
    this.#deps.log.error({ err: error, uid: peer.uid }, 'call not placed');
    this.#deps.emit('unmanaged', { uid: peer.uid }, { error: messageOf(error) });
    answer({ kind: 'none', notes: [...notes, `agentrm: running unmanaged: ${messageOf(error)}`] });
  }

  #make(
    peer: PeerCred,
    request: RunRequest,
    root: CgroupRoot,
    resolved: Asked,
    admissionWaitMs: number,
  ): Call {
    const { controller, sessions } = this.#deps;
    const wrapper = processStat(peer.pid);
    if (controller === undefined || wrapper === undefined) {
      throw Object.assign(new Error('the wrapper has gone'), { code: 'ESRCH' });
    }
    const config = this.#deps.config();
    const agent = request.agent?.slice(0, MAX_AGENT_CHARS) ?? null;
    const session = sessions.join(peer.uid, request.session, processStat(wrapper.ppid), agent);
    const lines = this.#lines(resolved);
    let call: Call | undefined;
    try {
      const { sessionCgroup, cgroup } = this.#take(root, session, { limits: resolved.limits, lines });
      call = new Call({
        session,
        sessionCgroup,
        cgroup,
        procPath: `${root.procPath}/${session.name}/${cgroup.name}`,
        limits: resolved.limits,
        declared: resolved.declared,
        lines,
        ceilingBytes: resolved.ceilingBytes,
        command: commandText(commandOf(request.argv), config.log.commands).slice(0, MAX_COMMAND_CHARS),
        agent,
        hugePages: config.enforcement.hugePages,
        wrapper: { pid: wrapper.pid, startTicks: wrapper.startTicks },
        admissionWaitMs,
      });
      controller.add(call);
    } catch (error) {
      if (call !== undefined) {
        controller.remove(call);
        call.sessionCgroup.discard(call.cgroup);
      }
      sessions.endIfOver(session);
      throw error;
    }
    this.#save(call);
    this.#byId.set(call.id, call);
    sessions.callStarted(session);
    return call;
  }

  /** A cgroup for a call in that of its session; the latter is made again if it was removed under us. */
  #take(root: CgroupRoot, session: Session, limits: CallLimits) {
    const sessionCgroup = this.#sessionCgroup(root, session);
    try {
      return { sessionCgroup, cgroup: sessionCgroup.take(limits) };
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENODEV') throw error;
      this.#deps.log.warn({ session: session.id, reason: messageOf(error) }, 'cgroup of session made again');
      this.#cgroups.delete(sessionCgroup.procPath);
      sessionCgroup.close();
      const again = this.#sessionCgroup(root, session);
      return { sessionCgroup: again, cgroup: again.take(limits) };
    }
  }

  /** What can wait until the command runs. */
  #afterStart(call: Call, request: RunRequest): void {
    if (this.#closed || call.phase === 'gone') return;
    try {
      call.origin = originOf(request, this.#deps.config().log.commands);
      call.feedbackKey = feedbackKey(call.session.uid, call.session.id, commandOf(request.argv));
      this.#feedback.started(call.feedbackKey);
      const chain = ancestors(call.wrapper.pid);
      call.ancestors = chain.map(({ pid, startTicks }) => ({ pid, startTicks }));
      call.agentProcess = agentProcessOf(chain, Boolean(request.session));
    } catch (error) {
      this.#deps.log.error({ err: error, call: call.id }, 'owner of call not known');
    }
    this.#tie(call);
    this.#lookForEscapes(call);
    this.#save(call);
    this.#deps.emit('call-start', about(call), {
      command: call.command,
      highBytes: call.limits.memoryHighBytes,
      maxBytes: call.limits.memoryMaxBytes,
      class: call.limits.class,
    });
    call.sessionCgroup.prepare();
    this.#deps.sessions.endIfOver(call.session);
  }

  #watchEscapes(call: Call): void {
    // Whoever owns the cgroups above may leave its own.
    const { cooperative, root } = this.#deps;
    if (!cooperative && call.sessionCgroup.root === root) return;
    if (this.#closed || call.phase === 'gone') return;
    try {
      this.#escapes.add(call);
    } catch (error) {
      this.#deps.log.error({ err: error, call: call.id }, 'processes of call not looked up');
    }
  }

  #lookForEscapes(call: Call): void {
    try {
      this.#escapes.look(call);
    } catch (error) {
      this.#deps.log.error({ err: error, call: call.id }, 'processes of call not looked up');
    }
  }

  #escaped(call: Call, { pid, comm, cgroup }: Escaped): void {
    // One line a call: a loop can do this thousands of times.
    if (!call.decisions.some(({ action }) => action === 'escaped'))
      this.#deps.log.warn({ call: call.id, pid, comm, cgroup }, 'a process has left its call');
    call.record({ action: 'escaped', reason: `process ${pid} (${comm}) moved itself to ${cgroup}` }, nowMs());
    this.#deps.emit('escaped', about(call), { pid, comm, cgroup });
    this.#save(call);
  }

  #sessionCgroup(root: CgroupRoot, session: Session): SessionCgroup {
    let cgroup = this.#cgroups.get(`${root.procPath}/${session.name}`);
    if (cgroup === undefined) {
      cgroup = this.openSession(root, session.name, session.uid);
      this.#cgroups.set(cgroup.procPath, cgroup);
      this.#saveSession(session);
      this.#deps.emit('session-start', { session: session.id, uid: session.uid }, { agent: session.agent });
    }
    return cgroup;
  }

  #lines(resolved: Resolved) {
    return linesFor({
      highBytes: resolved.limits.memoryHighBytes,
      declaredMaxBytes: resolved.limits.memoryMaxBytes,
      freezeLinePercent: this.#deps.config().enforcement.freezeLinePercent,
    });
  }

  #admitWaiting(): void {
    const now = nowMs();
    // In order of arrival; the first that does not fit keeps those behind it waiting too.
    while (this.#waiting[0]?.attempt(now)) this.#waiting.shift();
    if (this.#waiting.length > 0) return;
    clearInterval(this.#waitTimer);
    this.#waitTimer = undefined;
  }

  async #moveTree(call: Call): Promise<void> {
    // Twice: what is forked while the first pass moves its parents is found by the second.
    for (let pass = 0; pass < 2; pass += 1) {
      if (!isAlive(call.wrapper)) return;
      for (const pid of descendants(call.wrapper.pid)) {
        try {
          // A call of its own, of a wrapper below, stays one.
          if (call.phase !== 'live' || this.#isManaged(pid)) continue;
          await this.#bring(pid, call);
        } catch (error) {
          if (errnoOf(error) !== 'ESRCH')
            this.#deps.log.error({ err: error, call: call.id, pid }, 'process not moved');
        }
      }
    }
  }

  /** Moves a process into the cgroup of a call. */
  async #bring(pid: number, call: Call): Promise<void> {
    const { root } = call.sessionCgroup;
    const from = this.#deps.cooperative ? cgroupPathOf(pid) : undefined;
    if (from !== undefined && !mayMove(root.mount, root.procPath, from, call.session.uid))
      await attach(pid, call.procPath);
    else await call.cgroup.writeOffThread(files.procs, String(pid));
  }

  #isManaged(pid: number): boolean {
    const path = cgroupPathOf(pid);
    return path !== undefined && this.#rootAround(path) !== undefined;
  }

  /** The root that a process is below: it belongs to a call then. */
  #rootAround(path: string): CgroupRoot | undefined {
    const { root, containers } = this.#deps;
    return root !== undefined && path.startsWith(`${root.procPath}/`) ? root : containers?.around(path);
  }

  /** The root below the caller's container; undefined if it is in none, or in one that refuses. */
  #rootFor(peer: PeerCred, path: string): CgroupRoot | undefined | Promise<CgroupRoot | undefined> {
    const found = this.#deps.containers?.of(peer.pid, path);
    if (!(found instanceof Promise)) return found;
    return found.catch((error: unknown) => {
      this.#deps.log.error({ err: error, uid: peer.uid }, 'calls not placed in their container');
      this.#deps.emit('degraded', { uid: peer.uid }, { error: messageOf(error) });
      return undefined;
    });
  }

  #tie(call: Call): void {
    if (call.phase !== 'live' || call.agentProcess === null) return;
    try {
      this.#ties.set(call, this.#deps.sessions.tieCall(call.session, call.agentProcess));
    } catch (error) {
      this.#deps.log.error({ err: error, call: call.id }, 'agent of call not watched');
    }
  }

  #untie(call: Call): void {
    this.#ties.get(call)?.();
    this.#ties.delete(call);
  }

  #stopLookout(call: Call): void {
    this.#lookouts.get(call)?.();
    this.#lookouts.delete(call);
  }

  #forgetToken(call: Call): void {
    if (call.token !== undefined) this.#tokens.delete(call.token);
    call.token = undefined;
  }

  #lose(call: Call): void {
    if (call.phase !== 'live') return;
    this.#deps.controller?.kill(call, 'wrapper-lost', 'its wrapper has gone');
    this.end(call, {});
  }

  /** Takes down what is known of a call that has ended; returns the lines for the agent. */
  #finish(call: Call, ending: Ending): string[] {
    const { enforcer, log } = this.#deps;
    call.phase = 'lingering';
    this.#forgetToken(call);
    this.#stopLookout(call);
    this.#deps.sessions.callEnding(call.session, ownersOf(call.ancestors, call.agentProcess));
    let lines: string[] = [];
    try {
      if (enforcer === undefined) throw new Error('nothing enforces');
      const { leftovers, report } = this.#deps.config();
      const settings = { ...report, leftoversKept: leftovers === 'keep' };
      const record = finish(call, ending, enforcer, nowMs(), settings);
      if (record.report !== null) {
        lines = [record.report.line];
        // Whoever has killed the wrapper, as an agent does at its own timeout, need not be told.
        if (call.feedbackKey !== undefined && record.outcome !== 'lost') {
          this.#feedback.ended(call.feedbackKey, record.report.line);
        }
      }
      this.#deps.onFinished(record, call.origin);
      this.#deps.emit('call-end', about(call), { record });
      log.debug({ call: call.id, outcome: record.outcome, durationMs: record.durationMs }, 'call ended');
    } catch (error) {
      // The cgroup was removed under us: the command has run, only its figures are lost.
      log.error({ err: error, call: call.id }, 'call ended without figures');
      this.#deps.emit('degraded', about(call), { error: messageOf(error) });
      const record = finishWithoutFigures(call, ending, nowMs());
      // Nothing can be learned of a run without figures.
      this.#deps.onFinished(record, null);
      this.#deps.emit('call-end', about(call), { record });
    }
    // The wrapper waits for the answer; the rest can be done after it.
    setImmediate(() => {
      this.#tidy(call);
      if (this.#closed) return;
      this.#untie(call);
      this.#deps.sessions.callEnded(call.session);
      this.#saveSession(call.session);
    });
    return lines;
  }

  #populated(call: Call): boolean {
    try {
      return call.cgroup.populated();
    } catch {
      return false; // removed under us
    }
  }

  /** Removes a call that has ended, or leaves it until its last process has. */
  #tidy(call: Call): void {
    if (this.#closed || call.phase !== 'lingering') return;
    try {
      if (call.cgroup.populated()) {
        const orphaned = call.killCode === undefined && this.#deps.config().leftovers === 'kill';
        if (orphaned) this.#deps.controller?.kill(call, 'leftover', 'its command has ended');
        this.#deps.controller?.reordered();
        this.#save(call);
        return;
      }
      call.sessionCgroup.cgroup.removeChild(call.id);
    } catch (error) {
      // ENOENT, ENODEV: somebody removed it. EBUSY: an exit is still under way, which may not be reported.
      if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENODEV') {
        if (errnoOf(error) !== 'EBUSY') {
          this.#deps.log.error({ err: error, call: call.id }, 'cgroup not removed');
        }
        setTimeout(() => this.#tidy(call), RETRY_MS).unref();
        return;
      }
    }
    call.phase = 'gone';
    this.#escapes.remove(call);
    this.#deps.controller?.remove(call);
    this.#byId.delete(call.id);
    call.cgroup.close();
    this.#weigh(call.session, call.sessionCgroup);
    this.#removeIfOver(call.session);
  }

  /** Calls have come to a session, gone from it, or changed: what it weighs against others. */
  #weigh(session: Session, sessionCgroup: SessionCgroup): void {
    const living = [...this.#byId.values()].filter((call) => call.sessionCgroup === sessionCgroup);
    try {
      if (living.length === 0) sessionCgroup.forgetWeights();
      else sessionCgroup.setWeights(mostImportant(living).limits);
    } catch (error) {
      // ENOENT, ENODEV: somebody has removed it.
      if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENODEV')
        this.#deps.log.error({ err: error, session: session.id }, 'weights of session not changed');
    }
  }

  #removeIfOver(session: Session): void {
    if (this.#deps.sessions.has(session)) return;
    for (const call of this.#byId.values()) if (call.session === session) return;
    for (const cgroup of this.#cgroupsOf(session)) {
      if (cgroup.remove()) this.#cgroups.delete(cgroup.procPath);
    }
  }

  #cgroupsOf(session: Session): SessionCgroup[] {
    return [...this.#cgroups.values()].filter(({ name }) => name === session.name);
  }

  #save(call: Call): void {
    try {
      saveCall(call, nowMs());
    } catch (error) {
      // It only costs the call its place in a daemon to come.
      this.#deps.log.error({ err: error, call: call.id }, 'state of call not saved');
    }
  }

  #saveSession(session: Session): void {
    if (!this.#deps.sessions.has(session)) return;
    try {
      const { uid, id, agent, startedAtMs } = session;
      const owners = this.#deps.sessions.owners(session);
      for (const { cgroup } of this.#cgroupsOf(session))
        saveSession(cgroup, { uid, id, agent, startedAtMs, owners });
    } catch (error) {
      this.#deps.log.error({ err: error, session: session.id }, 'state of session not saved');
    }
  }
}

/** Why a command cannot be placed by a daemon that is not root, with what to do about it. */
function outside(root: CgroupRoot, path: string): Error {
  return new Error(
    `it was started in ${path}, from where nobody but root may move it below ${root.procPath}; ` +
      'start the agent by systemd-run --user --scope',
  );
}

function mostImportant(calls: readonly Call[]): Call {
  return calls.reduce((best, call) => (call.limits.cpuWeight > best.limits.cpuWeight ? call : best));
}

function about(call: Call): { session: string; call: string; uid: number } {
  return { session: call.session.id, call: call.id, uid: call.session.uid };
}
