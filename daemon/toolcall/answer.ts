// SPDX-License-Identifier: Apache-2.0
import type { Call } from './call.ts';

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

/** The exit status of a wrapper that may not run its command (env(1) and timeout(1) use it alike). */
const REFUSED = 125;

/** What the wrapper is told to do. Every note is one line for the agent. */
export type Answer =
  | { readonly kind: 'none'; readonly notes: readonly string[] }
  | { readonly kind: 'refuse'; readonly code: number; readonly notes: readonly string[] }
  | { readonly kind: 'clone'; readonly call: Call; readonly notes: readonly string[] }
  | { readonly kind: 'move'; readonly call: Call; readonly token: string; readonly notes: readonly string[] };

/** Takes the answer to a request, once. @returns false if the wrapper has gone. */
export type AnswerTo = (answer: Answer) => boolean;

/** The command is not to run. @param notes why. */
export function refusal(notes: readonly string[]): Answer {
  return { kind: 'refuse', code: REFUSED, notes };
}
