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
