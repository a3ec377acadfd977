// SPDX-License-Identifier: Apache-2.0

/**
 * Numbers from 0 up to 1, the same for the same seed: a counter whose every value is mixed (SplitMix32, after
 * Steele, Lea and Flood, OOPSLA 2014), so that neighbouring seeds have nothing in common.
 */
export function generator(seed: number): () => number {
  let state = mix(seed + 1);
  return () => {
    state = (state + 0x9e3779b9) | 0;
    return mix(state) / 2 ** 32;
  };
}

function mix(value: number): number {
  let mixed = value | 0;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
