// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { configSchema } from '../../daemon/config/schema.ts';
import { hostSettings } from '../../daemon/policy/host.ts';
import { resolveIntent } from '../../daemon/policy/limits.ts';
import { linesFor } from '../../daemon/policy/lines.ts';
import { Call } from '../../daemon/toolcall/call.ts';
import { parseIntent } from '../../daemon/toolcall/intent.ts';
import type { CallLimits, SessionCgroup } from '../../daemon/toolcall/session-cgroup.ts';

const config = configSchema(() => undefined).parse({});
const host = hostSettings(config, { memTotalBytes: 16 * 2 ** 30 });

/** What a call with such an intent gets on a host of 16 GiB. */
export function limitsOf(intent = ''): CallLimits {
  const parsed = parseIntent(intent);
  assert.ok(parsed.ok);
  const { limits } = resolveIntent({
    perCall: parsed.intent,
    classes: config.classes,
    defaults: host.defaults,
    guessedHighBytes: host.guessedHighBytes,
    ceiling: host.ceilingFor(0),
  });
  const lines = linesFor({
    highBytes: limits.memoryHighBytes,
    declaredMaxBytes: limits.memoryMaxBytes,
    freezeLinePercent: 2,
  });
  return { limits, lines };
}

/** A call over a plain tree, the only one of its session. Both cgroups are closed after the test. */
export function plainCall(
  t: TestContext,
  sessionCgroup: SessionCgroup,
  { limits, lines }: CallLimits,
  { procPath, startedAtMs }: { readonly procPath: string; readonly startedAtMs: number },
): Call {
  const { name } = sessionCgroup;
  const cgroup = sessionCgroup.take({ limits, lines });
  t.after(() => {
    cgroup.close();
    sessionCgroup.close();
  });
  return new Call({
    session: {
      ...{ key: name, uid: 0, id: name, name, startedAtMs, agent: null, lastActiveMs: startedAtMs },
      ...{ liveCalls: 1, orphanedCalls: 0, finishedCalls: 0 },
    },
    ...{ sessionCgroup, cgroup, procPath, limits, lines, ceilingBytes: 2 ** 30 },
    ...{ command: 'true', agent: null, hugePages: false, wrapper: { pid: 1, startTicks: 1 } },
    ...{ admissionWaitMs: 0, startedAtMs },
  });
}
