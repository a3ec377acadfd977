// SPDX-License-Identifier: Apache-2.0
import type { Config } from '../config/schema.ts';
import { containerCeiling } from '../kernel/container.ts';
import type { PeerCred } from '../kernel/native.ts';
import type { CgroupRoot } from '../kernel/tree.ts';
import type { HostSettings } from '../policy/host.ts';
import { type Declared, type Limits, minCeiling, type Resolved, resolveIntent } from '../policy/limits.ts';
import { type Lines, linesFor } from '../policy/lines.ts';
import { matchRule } from '../policy/rules.ts';
import { MAX_ID } from '../session/registry.ts';
import type { RunRequest } from './answer.ts';
import { commandOf } from './command.ts';
import type { CallClass, Intent } from './intent.ts';
import { type Origin, originOf } from './learning.ts';
import type { CallLimits } from './session-cgroup.ts';

export interface LimitsResolverDeps {
  readonly root: CgroupRoot | undefined;
  readonly config: () => Config;
  readonly host: () => HostSettings;
  readonly classOf: (uid: number, id: string) => CallClass | undefined;
  readonly learnedHighBytes: (uid: number, origin: () => Origin | null) => number | undefined;
}

/** A call's limits, and who said what of them. */
export type Asked = Resolved & { readonly declared: Declared };

/** What calls get, of all that is said about them. */
export class LimitsResolver {
  readonly #deps: LimitsResolverDeps;

  constructor(deps: LimitsResolverDeps) {
    this.#deps = deps;
  }

  /**
   * @param path of the caller's cgroup: the limits of a container hold for its calls too.
   * @param perCall what the call itself declares.
   */
  ofRequest(peer: PeerCred, request: RunRequest, path: string, perCall: Intent | undefined): Asked {
    const config = this.#deps.config();
    const general = this.#general(peer.uid);
    const command = commandOf(request.argv);
    const container = containerCeiling(this.#deps.root?.path ?? '', this.#deps.root?.procPath ?? '', path);
    const rule = matchRule(config.rules, command)?.intent;
    const agent = request.agent === undefined ? undefined : config.agents[request.agent]?.intent;
    const declared: Declared = {
      ...(perCall === undefined ? {} : { perCall }),
      ...(rule === undefined ? {} : { rule }),
      ...(agent === undefined ? {} : { agent }),
    };
    const { session } = request;
    const resolved = resolveIntent({
      ...general,
      ...declared,
      sessionClass: session ? this.#deps.classOf(peer.uid, session.slice(0, MAX_ID)) : undefined,
      learnedHighBytes: this.#deps.learnedHighBytes(peer.uid, () => originOf(request, config.log.commands)),
      ceiling:
        container === undefined
          ? general.ceiling
          : minCeiling(general.ceiling, { memoryMaxBytes: container }),
    });
    return { ...resolved, declared };
  }

  /** What a call of which so much was declared would get in a session of that class. */
  inClass(declared: Declared, uid: number, sessionClass: CallClass): Limits {
    return resolveIntent({ ...declared, sessionClass, ...this.#general(uid) }).limits;
  }

  /** What a call of this user gets of which nobody says anything: the spares are made with it. */
  usual(uid: number): CallLimits {
    const resolved = resolveIntent(this.#general(uid));
    return { limits: resolved.limits, lines: this.lines(resolved) };
  }

  /** Where that puts the lines for the kernel. */
  lines(resolved: Resolved): Lines {
    return linesFor({
      highBytes: resolved.limits.memoryHighBytes,
      declaredMaxBytes: resolved.limits.memoryMaxBytes,
      freezeLinePercent: this.#deps.config().enforcement.freezeLinePercent,
    });
  }

  /** What is said about all calls of a user. */
  #general(uid: number) {
    const { classes } = this.#deps.config();
    const { defaults, guessedHighBytes, ceilingFor } = this.#deps.host();
    return { classes, defaults, guessedHighBytes, ceiling: ceilingFor(uid) };
  }
}
