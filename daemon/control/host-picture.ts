// SPDX-License-Identifier: Apache-2.0
import { nowMs } from '../clock.ts';
import { hostMemory, hostPressure } from '../kernel/host.ts';
import type { Monitor } from './types.ts';

/** How the host stands at this moment. */
export function hostPicture(): Pick<Monitor, 'time' | 'host'> {
  const { totalBytes, availableBytes } = hostMemory();
  const pressure = (of: 'cpu' | 'memory' | 'io') => hostPressure(of)?.someAvg10 ?? null;
  return {
    time: new Date(nowMs()).toISOString(),
    host: {
      totalBytes,
      availableBytes,
      pressure: { cpu: pressure('cpu'), memory: pressure('memory'), io: pressure('io') },
    },
  };
}
