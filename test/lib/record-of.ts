// SPDX-License-Identifier: Apache-2.0
import type { CallRecord } from '../../daemon/control/types.ts';
import { type TestDaemon, until } from './daemon.ts';

/**
 * The record of a finished call, the oldest if there are several. The command may have ended a moment before it can be
 * read.
 * @param which its id, or its session
 */
export async function recordOf(
  daemon: TestDaemon,
  which: Pick<CallRecord, 'id'> | Pick<CallRecord, 'session'>,
): Promise<CallRecord> {
  const isIt = (record: CallRecord) =>
    'id' in which ? record.id === which.id : record.session === which.session;
  let found: CallRecord | undefined;
  await until(
    async () => {
      found = (await daemon.calls()).find(isIt);
      return found !== undefined;
    },
    `a record of ${Object.values(which)}`,
  );
  return found as CallRecord;
}

/**
 * The record of the call that this daemon has started last, once it has ended. The newest of a list may be an older call:
 * a wrapper waits no longer than 2 s for its end to be taken, and a query that the file does not answer has no old ones.
 */
export async function lastRecord(daemon: TestDaemon): Promise<CallRecord> {
  const started = (await daemon.events()).findLast(({ kind }) => kind === 'call-start');
  if (started?.call === undefined) throw new Error('no call was started');
  return recordOf(daemon, { id: started.call });
}
