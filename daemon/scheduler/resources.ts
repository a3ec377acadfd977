// SPDX-License-Identifier: Apache-2.0

/** What upstreams limit by the minute. */
export const RESOURCES = ['requests', 'inputTokens', 'outputTokens'] as const;
export type Resource = (typeof RESOURCES)[number];
