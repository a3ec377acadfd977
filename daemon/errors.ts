// SPDX-License-Identifier: Apache-2.0

/** What can go wrong in the daemon, one code a line; the command line maps them to exit codes. */
export type ErrorCode =
  | 'AGENTRM_ERR_NATIVE' // the addon is missing or does not load
  | 'AGENTRM_ERR_CGROUP' // the cgroup root cannot be used
  | 'AGENTRM_ERR_SOCKET' // the control socket cannot be listened on
  | 'AGENTRM_ERR_RUNNING' // another daemon answers on the socket, or has the cgroup
  | 'AGENTRM_ERR_UPSTREAM' // a model API cannot be reached as it is configured
  | 'AGENTRM_ERR_PROTOCOL'; // a message that is not of the protocol

/** An error of the daemon itself. What the kernel refused is in `cause`, with errno and path. */
export class AgentrmError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'AgentrmError';
    this.code = code;
  }
}

/** The errno name of a failed system call (`ENOENT` …), or undefined for any other error. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** One line about an error, for logs and for the `reason` fields that users read. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
