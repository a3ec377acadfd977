// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MetricSources } from '../../daemon/control/metric-readings.ts';
import { createMetrics } from '../../daemon/control/metrics.ts';
import { callRecord } from '../lib/records.ts';
import { status } from '../lib/status.ts';

const sources: MetricSources = {
  status: () => status(),
  enforcer: () => ({ eventsDropped: 3, recursionMisses: 4, sendSignalErrors: 5 }),
  store: () => ({ written: 6, dropped: 7, errors: 8, pending: 9, unjournaled: 12 }),
  eventsLost: () => 10,
  logLinesDropped: () => 11,
  pressure: (resource) =>
    resource === 'io'
      ? undefined
      : { someAvg10: 0, fullAvg10: 0, someTotalUs: 2_500_000, fullTotalUs: 1_000_000 },
};

/** Every metric that users may have on a dashboard: names and labels are only added, never changed. */
const golden = `
agentrm_admission_wait_seconds histogram
agentrm_backend_info gauge mode=bpf,user,none
agentrm_bad_intents_total counter
agentrm_bpf_events_dropped_total counter
agentrm_bpf_recursion_misses_total counter
agentrm_bpf_send_signal_errors_total counter
agentrm_build_info gauge version=1.2.3 node=${process.versions.node}
agentrm_call_duration_seconds histogram
agentrm_call_frozen_seconds_total counter
agentrm_call_throttled_seconds_total counter
agentrm_calls gauge state=waiting,running,throttled,frozen,lingering
agentrm_calls_total counter outcome=ok,killed,oom,timeout,lost
agentrm_config_reload_success gauge
agentrm_connections_refused_total counter reason=too-many,no-credentials,silent,malformed,too-long,out-of-order
agentrm_degraded gauge
agentrm_escapes_total counter
agentrm_events_lost_total counter
agentrm_freezes_total counter
agentrm_give_backs_total counter
agentrm_kills_total counter reason=memory-max,host-memory,timeout,session-end,wrapper-lost,leftover,operator
agentrm_lends_total counter
agentrm_log_lines_dropped_total counter
agentrm_oom_kills_total counter
agentrm_pool_budget_bytes gauge
agentrm_pool_reserve_bytes gauge
agentrm_pool_room_bytes gauge
agentrm_pool_used_bytes gauge
agentrm_pressure_cpu_stalled_seconds_total counter
agentrm_pressure_cpu_waiting_seconds_total counter
agentrm_pressure_io_stalled_seconds_total counter
agentrm_pressure_io_waiting_seconds_total counter
agentrm_pressure_memory_stalled_seconds_total counter
agentrm_pressure_memory_waiting_seconds_total counter
agentrm_process_cpu_seconds_total counter
agentrm_process_resident_memory_bytes gauge
agentrm_process_start_time_seconds gauge
agentrm_sessions gauge
agentrm_stops_total counter reason=line,budget-time,budget-events,pool
agentrm_store_dropped_total counter
agentrm_store_errors_total counter
agentrm_store_pending gauge
agentrm_store_unjournaled_total counter
agentrm_store_written_total counter
agentrm_thaws_total counter
agentrm_unmanaged_total counter reason=nested,outside,degraded,limit,error,gone
agentrm_waits_total counter`
  .trim()
  .split('\n');

interface Family {
  type: string;
  help: string;
  samples: Map<string, number>;
}

/** Reads the text format, as far as it is used here. */
function parse(text: string): Map<string, Family> {
  const families = new Map<string, Family>();
  const family = (name: string): Family => {
    const found = families.get(name) ?? { type: '', help: '', samples: new Map() };
    families.set(name, found);
    return found;
  };
  for (const line of text.split('\n')) {
    const comment = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line);
    const sample = /^(\w+?)(_bucket|_sum|_count)?(?:\{(.*)\})? (\S+)$/.exec(line);
    if (comment?.[2] && comment[3]) {
      if (comment[1] === 'HELP') family(comment[2]).help = comment[3];
      else family(comment[2]).type = comment[3];
    } else if (sample?.[1]) {
      family(sample[1]).samples.set(`${sample[2] ?? ''}${sample[3] ?? ''}`, Number(sample[4]));
    }
  }
  return families;
}

/** One line of the golden list. */
function describe(name: string, { type, samples }: Family): string {
  if (type === 'histogram') return `${name} ${type}`;
  const labels = new Map<string, string[]>();
  for (const key of samples.keys()) {
    for (const [, label = '', value = ''] of key.matchAll(/(\w+)="([^"]*)"/g)) {
      labels.set(label, [...(labels.get(label) ?? []), value]);
    }
  }
  return [name, type, ...[...labels].map(([label, values]) => `${label}=${values.join(',')}`)].join(' ');
}

async function samples(metrics: ReturnType<typeof createMetrics>, name: string) {
  return Object.fromEntries(parse(await metrics.text()).get(name)?.samples ?? []);
}

test('names, types and labels are those of the list, with the naming rules of Prometheus', async () => {
  const families = parse(await createMetrics(sources).text());
  assert.deepEqual([...families].map(([name, family]) => describe(name, family)).sort(), golden);
  for (const [name, { type, help }] of families) {
    assert.match(name, /^agentrm_[a-z_]+$/);
    assert.equal(type === 'counter', name.endsWith('_total'), name);
    assert.match(help, /^[A-Z0-9].*\.$/, `help of ${name}`);
  }
});

test('every counter of the daemon itself is there from the start, at 0', async () => {
  const metrics = createMetrics(sources);
  for (const [name, { type, samples }] of parse(await metrics.text())) {
    if (type !== 'counter' || /_(bpf|pressure|store|process|lost|dropped)_/.test(name)) continue;
    assert.ok(samples.size > 0, name);
    for (const [labels, value] of samples) assert.equal(value, 0, `${name}{${labels}}`);
  }
  for (const [name, count] of Object.entries(metrics.counters())) assert.equal(count, 0, name);
});

test('a call that ended is counted by its outcome, in seconds', async () => {
  const metrics = createMetrics(sources);
  const { memory } = callRecord(1);
  metrics.finished(callRecord(1));
  const hurt = { ...memory, throttledMs: 250, frozenMs: 1500, oomKills: 2 };
  metrics.finished(callRecord(2, { outcome: 'oom', durationMs: 20_000, memory: hurt }));
  assert.deepEqual(await samples(metrics, 'agentrm_calls_total'), {
    'outcome="ok"': 1,
    'outcome="killed"': 0,
    'outcome="oom"': 1,
    'outcome="timeout"': 0,
    'outcome="lost"': 0,
  });
  assert.deepEqual(await samples(metrics, 'agentrm_oom_kills_total'), { '': 2 });
  assert.deepEqual(await samples(metrics, 'agentrm_call_throttled_seconds_total'), { '': 0.25 });
  assert.deepEqual(await samples(metrics, 'agentrm_call_frozen_seconds_total'), { '': 1.5 });
  const duration = await samples(metrics, 'agentrm_call_duration_seconds');
  assert.equal(duration._sum, 21.5);
  assert.equal(duration['_bucketle="5"'], 1);
  assert.equal(duration['_bucketle="60"'], 2);
  const { calls, ok, oom, oomKills } = metrics.counters();
  assert.deepEqual({ calls, ok, oom, oomKills }, { calls: 2, ok: 1, oom: 1, oomKills: 2 });
});

test('events are counted by what they tell of, and unknown ones make no new label', async () => {
  const metrics = createMetrics(sources);
  metrics.event('stop', { reason: 'budget-time' });
  metrics.event('stop', { reason: 'made up' });
  metrics.event('kill', { code: 'timeout', reason: 'any text' });
  metrics.event('kill', { code: 'made up' });
  for (const kind of [
    'freeze',
    'thaw',
    'lend',
    'lend',
    'give-back',
    'wait',
    'bad-intent',
    'made-up',
    'constructor',
  ]) {
    metrics.event(kind, {});
  }
  const stops = await samples(metrics, 'agentrm_stops_total');
  assert.equal(stops['reason="budget-time"'], 1);
  assert.equal(
    Object.values(stops).reduce((sum, count) => sum + count, 0),
    1,
  );
  const kills = await samples(metrics, 'agentrm_kills_total');
  assert.equal(kills['reason="timeout"'], 1);
  assert.equal(
    Object.values(kills).reduce((sum, count) => sum + count),
    1,
  );
  assert.equal((await samples(metrics, 'agentrm_lends_total'))[''], 2);
  const { freezes, lends, kills: killed, stops: stopped, badIntents } = metrics.counters();
  assert.deepEqual(
    { freezes, lends, killed, stopped, badIntents },
    { freezes: 1, lends: 2, killed: 1, stopped: 1, badIntents: 1 },
  );
});

test('refusals, unmanaged commands, waits and reloads are counted', async () => {
  const metrics = createMetrics(sources);
  metrics.refused('silent');
  metrics.unmanaged('nested');
  metrics.unmanaged('nested');
  metrics.admitted(600);
  metrics.reloaded(false);
  assert.equal((await samples(metrics, 'agentrm_connections_refused_total'))['reason="silent"'], 1);
  assert.equal((await samples(metrics, 'agentrm_unmanaged_total'))['reason="nested"'], 2);
  assert.equal((await samples(metrics, 'agentrm_admission_wait_seconds'))._sum, 0.6);
  assert.equal((await samples(metrics, 'agentrm_config_reload_success'))[''], 0);
  metrics.reloaded(true);
  assert.equal((await samples(metrics, 'agentrm_config_reload_success'))[''], 1);
  const { unmanaged, refused } = metrics.counters();
  assert.deepEqual({ unmanaged, refused }, { unmanaged: 2, refused: 1 });
});

test('what is counted elsewhere is read at each scrape and does not add up', async () => {
  const metrics = createMetrics(sources);
  await metrics.text();
  const families = parse(await metrics.text());
  const value = (name: string, labels = '') => families.get(`agentrm_${name}`)?.samples.get(labels);
  assert.equal(value('bpf_events_dropped_total'), 3);
  assert.equal(value('bpf_recursion_misses_total'), 4);
  assert.equal(value('bpf_send_signal_errors_total'), 5);
  assert.equal(value('store_written_total'), 6);
  assert.equal(value('store_dropped_total'), 7);
  assert.equal(value('store_errors_total'), 8);
  assert.equal(value('store_pending'), 9);
  assert.equal(value('store_unjournaled_total'), 12);
  assert.equal(value('events_lost_total'), 10);
  assert.equal(value('log_lines_dropped_total'), 11);
  assert.equal(value('pressure_memory_waiting_seconds_total'), 2.5);
  assert.equal(value('pressure_memory_stalled_seconds_total'), 1);
  assert.equal(value('pressure_io_waiting_seconds_total'), 0);
  assert.equal(value('backend_info', 'mode="bpf"'), 1);
  assert.equal(value('backend_info', 'mode="none"'), 0);
  assert.equal(value('calls', 'state="frozen"'), 1);
  assert.equal(value('pool_budget_bytes'), status().pool.budgetBytes);
  assert.ok(Number(value('process_resident_memory_bytes')) > 1e6);
});
