// SPDX-License-Identifier: Apache-2.0
import type { SessionClass } from '../control/types.ts';
import { RecentMap } from '../scheduler/recent-map.ts';
import { sessionKey } from './name.ts';

/** A session is told of before its first call, and by anybody who can reach the proxy: the newest are kept. */
const MAX_SESSIONS = 10_000;

/** The classes of sessions, as their turns show them. */
export class SessionClasses {
  readonly #classes = new RecentMap<string, SessionClass>(MAX_SESSIONS, () => {});

  of(uid: number, id: string): SessionClass | undefined {
    return this.#classes.peek(sessionKey(uid, id));
  }

  /** @returns whether it is another one than before. */
  set(key: string, sessionClass: SessionClass): boolean {
    if (this.#classes.get(key) === sessionClass) return false;
    this.#classes.set(key, sessionClass);
    return true;
  }
}
