// SPDX-License-Identifier: Apache-2.0
import type { Call } from './call.ts';

/** Of whom an event tells, as far as that is known. */
export interface About {
  readonly session?: string;
  readonly call?: string;
  readonly uid?: number;
}

export type Emit = (kind: string, about: About, detail?: object) => void;

export function about(call: Call): Required<About> {
  return { session: call.session.id, call: call.id, uid: call.session.uid };
}
