// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync } from 'node:fs';
import type { AllocResults } from './alloc.bench.ts';
import type { CpuResults } from './cpu.bench.ts';
import type { DaemonResults } from './daemon.bench.ts';
import type { FreezeThawResults } from './freeze-thaw.bench.ts';
import type { LendResults } from './lend.bench.ts';
import type { Added, ProxyResults } from './proxy.bench.ts';
import type { RateResults } from './rate.bench.ts';
import { type BenchResult, resultsDir } from './record.ts';
import type { ReplayResult, ReplayResults } from './replay.bench.ts';
import type { ShortageResults } from './shortage.bench.ts';
import type { PaperRow, SimResults } from './sim.bench.ts';
import type { SoakPart } from './soak.bench.ts';
import { type Interval, interval, median } from './stats.ts';
import type { StopResults } from './stop.bench.ts';
import type { TurnsResults } from './turns.bench.ts';
import type { WrapperResults } from './wrapper.bench.ts';

const MiB = 2 ** 20;

/**
 * docs/benchmarks.md, from the results that are there.
 * @param before the page as it is: what was not measured here stays, machine by machine.
 */
export function page(before: string): string {
  const section = <R>(name: string, title: string, text: (result: BenchResult<R>) => string): string => {
    const parts = partsOf(before, title);
    for (const result of readResults<R>(name)) parts.set(machineOf(result), partOf(result, text(result)));
    if (parts.size === 0) return '';
    const byKernel = [...parts].sort(([a], [b]) => a.localeCompare(b, 'en', { numeric: true }));
    return `## ${title}\n\n${byKernel.map(([, part]) => part).join('\n')}`;
  };
  const sections = [
    section<WrapperResults>('wrapper', 'What the wrapper adds', wrapper),
    section<StopResults>('stop', 'How far past the freeze line', stop),
    section<LendResults>('lend', 'From a stop to the next page', lend),
    section<ShortageResults>('shortage', 'From a shortage to the first stop', shortage),
    section<FreezeThawResults>('freeze-thaw', 'Freeze, thaw, finish', freezeThaw),
    section<AllocResults>('alloc', 'What touching memory costs', alloc),
    section<DaemonResults>('daemon', 'The daemon', daemon),
    section<RateResults>('rate', 'The daemon at a steady rate', rate),
    section<CpuResults>('cpu', 'A burner beside interactive work', cpu),
    section<readonly SoakPart[]>('soak', 'What is left of many calls', soak),
    section<ReplayResults>('replay', 'Recorded sessions under a common limit', replay),
    section<ProxyResults>('proxy', 'What the proxy adds', proxy),
    section<TurnsResults>('turns', 'Too little for all, and what goes wrong', turns),
    section<SimResults>('sim', 'The scheduler, simulated', sim),
  ].filter((text) => text !== '');
  return `${head}\n${sections.join('\n')}`;
}

const head = `# Benchmarks

Made by \`make bench\` from \`test/bench/results/*.json\`, which have every number; changes here are lost.

The host is a 2-core x86-64 virtual machine; kernels other than its own ran in guests of it. In an *emulated*
guest a system call costs some five times as much and code that was just compiled, as Node's, more: bytes and
ratios hold elsewhere, milliseconds do not. Brackets hold 95 % intervals (bootstrap).
`;

function machineOf({ machine }: BenchResult<unknown>): string {
  return `Linux ${machine.kernel}${machine.emulated ? ', emulated' : ''}`;
}

function partOf(result: BenchResult<unknown>, text: string): string {
  const { counts, date, note } = result;
  const often = Object.entries(counts).map(([what, number]) => `${what} ${number}`);
  const more = note === null ? '' : `; ${note}`;
  return `${machineOf(result)}, ${date.slice(0, 10)}; ${often.join(', ')}${more}:\n\n${text}`;
}

/** What a page says of each machine under a title. */
function partsOf(page: string, title: string): Map<string, string> {
  const section = page.split(/^## /m).find((text) => text.startsWith(`${title}\n`)) ?? '';
  const parts = section.split(/^(?=Linux [^\n]*:$)/m).slice(1);
  return new Map(
    parts.map((part) => [/^Linux [^,]+(, emulated)?/.exec(part)?.[0] ?? '', `${part.trimEnd()}\n`]),
  );
}

function readResults<R>(name: string): BenchResult<R>[] {
  const files = readdirSync(resultsDir).filter((file) => file.endsWith('.json'));
  const all = files.map((file) => JSON.parse(readFileSync(resultsDir + file, 'utf8')) as BenchResult<R>);
  return all
    .filter(({ benchmark }) => benchmark === name)
    .sort((a, b) => a.machine.kernel.localeCompare(b.machine.kernel, 'en', { numeric: true }));
}

function wrapper({ results }: BenchResult<WrapperResults>): string {
  const rows = results.callers.map((one) => [
    one.caller,
    one.pattern,
    `${one.managed ?? 'none'} of ${one.addedMs.count}`,
    number(one.bashMs.p50),
    number(one.bashMs.p99),
    withInterval(one.addedMs.p50, one.addedMs.p50Interval),
    withInterval(one.addedMs.p99, one.addedMs.p99Interval),
    withInterval(one.p50Ratio, one.p50RatioInterval),
    withInterval(one.p99Ratio, one.p99RatioInterval),
  ]);
  const columns = [
    'caller',
    'calls',
    'managed',
    'bash p50, ms',
    'bash p99, ms',
    'added p50, ms',
    'added p99, ms',
  ];
  return `${table([...columns, 'p50 / bash', 'p99 / bash'], rows)}
The last two are multiples of bash's p50. What else the machine does is in both of the 99th percentiles.
${degraded(results.backend)}`;
}

function stop({ results }: BenchResult<StopResults>): string {
  const key = ({ load, pages }: { load: string; pages: string }) => `${load}, ${pages} pages`;
  const arms = [...new Set(results.loads.map(({ arm }) => arm))];
  const rows = [...new Set(results.loads.map(key))].map((name) => {
    const row = results.loads.filter((one) => key(one) === name);
    const ours = row.find(({ arm }) => arm === 'agentrm');
    const perTask = ours?.memoryMaxBytes
      ? `memory.max ${mib(ours.memoryMaxBytes - results.lineBytes)} over the line`
      : `${kib(ours?.maxOverPerTaskBytes)} (${kib(ours?.goalPerTaskBytes)})`;
    const over = arms.map((arm) => {
      const one = row.find((other) => other.arm === arm);
      return one === undefined ? '' : mib(one.maxOverBytes);
    });
    return [name, `${ours?.tasks ?? ''}`, ...over, perTask];
  });
  let stops = 0;
  let reclaims = 0;
  for (const one of results.pageCacheReader) {
    stops += one.stops;
    reclaims += one.reclaims;
  }
  return `${table(['load', 'tasks', ...arms, 'KiB a task (goal)'], rows)}
Highest of the runs, MiB over the line of ${mib(results.lineBytes)} MiB (memory.high ${mib(results.highBytes)} MiB).
A page-cache reader beside 60 MB of anonymous memory: ${stops} stops in ${reclaims} reclaims over memory.high.
`;
}

function lend({ results: { stopToPageMs } }: BenchResult<LendResults>): string {
  return table(
    ['stops', 'p50, ms', 'p99, ms', 'most, ms'],
    [
      [
        `${stopToPageMs.count}`,
        withInterval(stopToPageMs.p50, stopToPageMs.p50Interval),
        withInterval(stopToPageMs.p99, stopToPageMs.p99Interval),
        number(stopToPageMs.max),
      ],
    ],
  );
}

function shortage({ results }: BenchResult<ShortageResults>): string {
  const rows = results.map(({ mode, growthMs, freezeMs }) => [
    mode === 'bpf' ? 'the kernel, at the charge' : "the daemon's looks",
    `${growthMs.count}, ${freezeMs.count}`,
    withInterval(growthMs.p50, growthMs.p50Interval),
    withInterval(growthMs.p99, growthMs.p99Interval),
    withInterval(freezeMs.p50, freezeMs.p50Interval),
    withInterval(freezeMs.p99, freezeMs.p99Interval),
  ]);
  const to = ['last page p50, ms', 'last page p99, ms', 'freeze p50, ms', 'freeze p99, ms'];
  return table(['stopped by', 'rounds, with a freeze', ...to], rows);
}

function freezeThaw({ results, counts }: BenchResult<FreezeThawResults>): string {
  return table(
    ['runs', 'exit 0', 'same output as unlimited', 'frozen at least once', 'freezes in all'],
    [[counts.runs, results.exitZero, results.identical, results.frozen, results.freezes].map(String)],
  );
}

function alloc({ results }: BenchResult<AllocResults>): string {
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const [low, high] = results.lossShareInterval;
  return table(
    ['with BPF, ms', 'without, ms', 'loss', 'huge pages, ms', 'small / huge pages'],
    [
      [
        number(results.withBpfMs.p50),
        number(results.withoutMs.p50),
        `${percent(results.lossShare)} [${percent(low)}, ${percent(high)}]`,
        number(results.hugePagesMs.p50),
        withInterval(results.smallToHugePages, results.smallToHugePagesInterval),
      ],
    ],
  );
}

function daemon({ results, counts }: BenchResult<DaemonResults>): string {
  const { atOnce } = results;
  const rows = [
    ['resident when idle', `${mib(results.idleRssBytes)} MiB`],
    ['CPU time of a call', `${number(results.cpuMsPerCall)} ms`],
    [`calls at once that ended well, of ${counts.atOnce}`, `${atOnce.ended}`],
    ['of these managed to their end', `${atOnce.managed}`],
    ['of these without an answer in time, or with a late one', `${atOnce.unmanaged}, ${atOnce.late}`],
    ['the last of them ended after', `${number(atOnce.endedMs.max / 1000)} s`],
    ['resident at most, and afterwards', `${mib(atOnce.peakRssBytes)}, ${mib(atOnce.rssBytes)} MiB`],
    ['descriptors when idle, and afterwards', `${results.idleFds}, ${atOnce.fds}`],
  ];
  return table(['what', 'number'], rows) + degraded(results.backend);
}

function rate({ results, counts }: BenchResult<RateResults>): string {
  const { growth, before, after } = results;
  const rows = results.minutes.map((one, index) => [
    `${index + 1}`,
    `${one.calls}, ${one.heldBack}`,
    `${one.managed}`,
    `${one.unmanaged}, ${one.unanswered}`,
    number(one.bashMs.p50),
    withInterval(one.callMs.p50, one.callMs.p50Interval),
    withInterval(one.callMs.p99, one.callMs.p99Interval),
    mib(one.rssBytes),
    `${one.fds}, ${one.mostFds}`,
    `${number(one.cpuMs / one.calls)}`,
    `${number(100 * one.busy)} %`,
  ]);
  const ratios = [
    number(growth.bashP50),
    withInterval(growth.p50, growth.p50Interval),
    withInterval(growth.p99, growth.p99Interval),
    number(growth.rss),
    number(growth.fds),
  ];
  const columns = ['minute', 'due, held back', 'managed', 'answered to run without, unanswered in time'];
  const more = [
    'bash p50, ms',
    'p50, ms',
    'p99, ms',
    'resident, MiB',
    'descriptors, most',
    'daemon CPU a call, ms',
    'CPUs busy',
  ];
  return `${table([...columns, ...more], [...rows, ['last / first', '', '', '', ...ratios, '', '']])}
${counts.rate} calls a minute, each due at its time whether or not those before have ended, at most ${counts.most} at once; a call's
time counts from when it was due. Resident before the first and after the last: ${mib(before.rssBytes)}, ${mib(after.rssBytes)} MiB; descriptors
${before.fds}, ${after.fds}.
${degraded(results.backend)}`;
}

function cpu({ results }: BenchResult<CpuResults>): string {
  const rows = results.arms.map((one) => [
    one.arm,
    withInterval(one.oneRatio, one.oneRatioInterval),
    withInterval(one.allRatio, one.allRatioInterval),
    withInterval(one.lateMs.p50, one.lateMs.p50Interval),
    withInterval(one.lateMs.p99, one.lateMs.p99Interval),
  ]);
  const columns = ['beside', 'one worker', `${results.cores} workers`, 'timer late p50, ms', 'p99, ms'];
  return `${table(columns, rows)}
Time over CPU time of interactive work, 1 if it never waits, beside a call of another session that spins on every CPU twice:
*equal* with the same weight, *agentrm* as a background call is held by default.
`;
}

function soak({ results: parts }: BenchResult<readonly SoakPart[]>): string {
  type Count = { [K in keyof SoakPart]: SoakPart[K] extends number ? K : never }[keyof SoakPart];
  const sum = (of: (part: SoakPart) => number) => parts.reduce((total, part) => total + of(part), 0);
  const sums = (...names: Count[]) => names.map((name) => `${sum((part) => part[name])}`).join(', ');
  const often = (of: (part: SoakPart) => Readonly<Record<string, number>>) =>
    [...new Set(parts.flatMap((part) => Object.keys(of(part))))]
      .map((what) => `${what} ${sum((part) => of(part)[what] ?? 0)}`)
      .join(', ');
  const entries = sum(({ mapEntries }) => Object.values(mapEntries).reduce((total, one) => total + one, 0));
  const rows = [
    ['parts, each with a daemon and a seed of its own', `${parts.length}`],
    ['calls', `${sums('calls')}: ${often(({ kinds }) => kinds)}`],
    ['the daemon restarted, killed', sums('daemonRestarts', 'daemonKills')],
    ['ran in a cgroup of their own, as they said', sums('managed')],
    ['of these without a record, with two', sums('unrecorded', 'recordedTwice')],
    ['records of others, which were killed too soon to say it, or were moved', sums('recordedOnly')],
    ['outcomes', often(({ outcomes }) => outcomes)],
    ['left: stuck, cgroups, processes, map entries', `${sums('stuck', 'cgroups', 'processes')}, ${entries}`],
    ['minutes', number(sum(({ minutes }) => minutes))],
  ];
  return table(['what', 'number'], rows);
}

function proxy({ results, counts }: BenchResult<ProxyResults>): string {
  // Results of before have not all columns.
  const p99 = (added: Added | null | undefined) => (added ? number(added.p99) : '');
  const p50 = (added: Added | null) => (added === null ? '' : withInterval(added.p50, added.p50Interval));
  const rows = results.servers.map((one) => [
    one.name,
    p50(one.small),
    p99(one.parallel),
    p99(one.inStep),
    p50(one.firstByte),
    p50(one.large),
    number(one.requestsPerSecond),
    number(one.cpuMsPerRequest),
    one.rssBytes === null ? '' : mib(one.rssBytes),
  ]);
  const columns = ['server', 'small p50, ms', `${counts.clients} clients p99, ms`, 'in step, ms'];
  const more = [
    'first byte p50, ms',
    '100 K tokens p50, ms',
    'requests/s',
    'CPU a request, ms',
    `MiB at ${counts.streams} streams`,
  ];
  return `${table([...columns, ...more], rows)}
Times are those over a direct connection; in step: all of the ${counts.clients} ask in the same moment, again and again.
A column is empty where the server has no part in it; Portkey 1.15.2 answers streams with 500 on Node 24.
`;
}

function turns({ results, counts }: BenchResult<TurnsResults>): string {
  const percent = (share: number) => `${number(100 * share)} %`;
  const seconds = (ms: number) => number(ms / 1000);
  const stormRows = results.storms.map((one) => [
    `${one.agents}`,
    one.told ? 'yes' : 'no',
    one.through,
    `${one.failedAgents}`,
    `${one.turns}`,
    `${one.refused}`,
    `${one.refusalsSeen}`,
    seconds(one.longestMs),
  ]);
  const tokenRows = results.overshoots.map((one) => [
    one.limit === 'inputTokens' ? 'input' : 'output',
    one.through,
    percent(one.overshoot),
    percent(one.used),
    `${one.turns}`,
  ]);
  const fairRows = results.fairness.map((one) => [
    one.short,
    number(one.jain),
    number(one.greedyShare),
    seconds(one.othersP95Ms),
    seconds(one.aloneP95Ms),
    number(one.p95Ratio),
  ]);
  const healthyRows = results.reaper.healthy.map((one) => [
    one.name,
    `${one.turns}`,
    `${one.reaped}`,
    '',
    '',
  ]);
  const hungRows = results.reaper.hung.map((one) => [
    one.name,
    `${one.turns}`,
    `${one.ended}`,
    `${number(one.lateMs.least)} to ${number(one.lateMs.most)}`,
    `${one.recovered}`,
  ]);
  const { wire, simulated } = results;
  const leakRows = [
    [
      'requests on the wire, of these answered, with an error, cut, left by their clients',
      `${wire.requests}: ${Object.values(wire.ends).join(', ')}`,
    ],
    [
      'lanes, waiting turns, reservations, drift of buckets, bytes of bodies left',
      [wire.lanes, wire.waiting, wire.reserved, wire.drift, wire.bodyBytes].join(', '),
    ],
    ['descriptors before and after', `${wire.descriptors.before}, ${wire.descriptors.after}`],
    ['resident after each eighth of them, MiB', wire.rssBytes.map(mib).join(', ')],
    ['turns that went wrong on a simulated clock, and left nothing', `${simulated.ends}`],
  ];
  const goalRows = results.goals.map(({ goal, wanted, found, reached }) => [
    `${goal} ${wanted}`,
    number(found),
    reached ? 'yes' : 'no',
  ]);
  return `Storms on accounts of 50 requests a minute (a bucket that refills evenly), in real minutes; agents use the official SDK,
which tries twice more, and give up with the first turn that fails:

${table(['agents', 'limit told', 'through', 'agents failed', 'turns', '429 given', '429 seen', 'longest turn, s'], stormRows)}
Forty agents under a limit of tokens; \`counted\` is charged when answers have ended, and sends while the last minute's sum
is under the limit:

${table(['tokens', 'through', 'worst minute, over the limit', 'of it used', 'turns'], tokenRows)}
One agent with 20 turns at a time beside nine with two, and the same nine alone:

${table(['short', "Jain's index", 'greedy / another', "others' P95, s", 'alone, s', 'ratio'], fairRows)}
The reaper, timers as shipped, ${counts.copies} of each kind:

${table(['turns', 'how many', 'ended', 'after the timer, ms', 'served by a second attempt'], [...healthyRows, ...hungRows])}
${table(['after what went wrong', 'number'], leakRows)}
${table(['goal', 'found', 'reached'], goalRows)}`;
}

function sim({ results }: BenchResult<SimResults>): string {
  const seconds = (ms: number) => number(ms / 1000);
  const rows = results.runs
    .filter(({ preset }) => preset !== 'paper')
    .map((run) => {
      const paper: PaperRow | undefined =
        run.policy === 'agentrm' || run.preset === 'honest'
          ? undefined
          : results.paper[run.scenario][run.policy];
      const beside = (found: string, printed: string | undefined) =>
        printed === undefined ? found : `${found} (${printed})`;
      const reaper = run.policy === 'mlfq' || run.policy === 'agentrm';
      return [
        run.scenario,
        reaper ? `${run.policy}, ${run.preset}` : run.policy,
        beside(seconds(run.p95Ms.median), paper && seconds(paper.p95Ms)),
        beside(number(run.throughputPerMin.median), paper && number(paper.throughputPerMin)),
        beside(number(run.zombies.median), paper && number(paper.zombies)),
        beside(number(run.recovered.median), paper && number(paper.recovered)),
        beside(seconds(run.laneWasteMs.median), paper && seconds(paper.laneWasteMs)),
        seconds(run.laneWasteTotalMs.median),
        seconds(run.interactiveP95Ms.median),
        seconds(run.maxBackgroundWaitMs.median),
      ];
    });
  const columns = ['load', 'policy', 'P95, s', 'turns/min', 'zombies', 'recovered', 'their lane time, s'];
  const more = ['all lost lane time, s', 'interactive P95, s', 'longest background wait, s'];
  const goals = results.goals.map(({ goal, wanted, found, reached }) => [
    `${goal} ${wanted}`,
    number(found),
    reached ? 'yes' : 'no',
  ]);
  const fairness = results.fairness.map(({ policy, jain, othersP95Ratio }) => [
    policy,
    number(jain),
    number(othersP95Ratio),
  ]);
  return `Medians; in brackets what the paper printed, at mlfq for its AgentRM-MLFQ.

${table([...columns, ...more], rows)}
${table(['goal', 'found', 'reached'], goals)}
One agent with 40 turns at a time beside nine with two, four lanes:

${table(['policy', "Jain's index of tokens", "others' P95, with / without it"], fairness)}`;
}

function replay({ results }: BenchResult<ReplayResults>): string {
  const names = [...new Set(results.map(({ experiment }) => experiment))];
  return names
    .map((name) => {
      const arms = results.filter(({ experiment }) => experiment === name);
      const [{ limitBytes, summedPeakBytes, runs }] = arms as [ReplayResult];
      const traces = new Map<string, number>();
      for (const { trace } of runs[0]?.sessions ?? []) traces.set(trace, (traces.get(trace) ?? 0) + 1);
      const what = [...traces]
        .map(([trace, count]) => (count === 1 ? trace : `${count} × ${trace}`))
        .join(', ');
      const { speed, baseBytes } = runs[0] ?? { speed: 1, baseBytes: 0 };
      const base = baseBytes === 0 ? '' : `, and ${mega(baseBytes)} MB each all the time`;
      return `**${name}**: ${mega(limitBytes)} MB for ${what}${base}; unhindered they want ${mega(summedPeakBytes)} MB at
most. ${speed === 1 ? 'As fast as recorded' : `${speed} times as fast as recorded`}.

${table(replayColumns, arms.map(replayRow))}`;
    })
    .join('\n');
}

const replayColumns = [
  'arm',
  'runs',
  'survive',
  'high / alone',
  'low / alone',
  'growth of high, P95, ms',
  'low frozen, s',
];

function replayRow({ arm, runs }: ReplayResult): string[] {
  const sessions = runs.map(({ sessions }) =>
    sessions.map((session, index) => ({ ...session, high: index === 0 })),
  );
  const all = sessions.flat();
  const alive = all.filter(({ survived }) => survived);
  const ratios = (high: boolean) =>
    alive.flatMap((one) =>
      one.high === high && one.totalMs !== null && one.aloneMs !== null ? one.totalMs / one.aloneMs : [],
    );
  const growths = alive.flatMap(({ high, allocP95Ms }) => (high ? (allocP95Ms ?? []) : []));
  const frozen = alive.flatMap(({ high, frozenMs }) => (high ? [] : frozenMs / 1000));
  return [
    arm,
    `${runs.length}`,
    `${alive.length} of ${all.length}`,
    ...[ratios(true), ratios(false), growths].map(medianWithInterval),
    frozen.length === 0 ? '' : number(median(frozen)),
  ];
}

function medianWithInterval(values: readonly number[]): string {
  return values.length === 0 ? '' : withInterval(median(values), interval(values, median));
}

function mega(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}

/** What a host that cannot manage calls still shows. */
function degraded(backend: string): string {
  if (backend !== 'none') return '';
  return '\nNo cgroup v2 with memory here: every call was asked for, answered, and run unmanaged.\n';
}

function table(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [columns, columns.map(() => '---'), ...rows];
  return lines.map((cells) => `| ${cells.join(' | ')} |\n`).join('');
}

function withInterval(value: number, [low, high]: Interval): string {
  return `${number(value)} [${number(low)}, ${number(high)}]`;
}

/** Three digits that count. */
function number(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

function mib(bytes: number): string {
  return number(bytes / MiB);
}

function kib(bytes = 0): string {
  return (bytes / 1024).toFixed(0);
}
