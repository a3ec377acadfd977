// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { configSchema } from '../../daemon/config/schema.ts';
import type { CallRecord } from '../../daemon/control/types.ts';
import { STATE_XATTR } from '../../daemon/kernel/files.ts';
import { Freezer } from '../../daemon/kernel/freezer.ts';
import { type Native, native, type PeerCred } from '../../daemon/kernel/native.ts';
import { childrenOf, processStat } from '../../daemon/kernel/proc.ts';
import { UserEnforcer } from '../../daemon/kernel/user-enforcer.ts';
import { createLogger } from '../../daemon/log.ts';
import { hostSettings } from '../../daemon/policy/host.ts';
import { SessionClasses } from '../../daemon/session/classes.ts';
import { SessionRegistry } from '../../daemon/session/registry.ts';
import { adopt } from '../../daemon/toolcall/adoption.ts';
import type { Answer } from '../../daemon/toolcall/answer.ts';
import type { Call } from '../../daemon/toolcall/call.ts';
import { Controller } from '../../daemon/toolcall/controller.ts';
import { CallManager } from '../../daemon/toolcall/manager.ts';
import { SessionCgroup } from '../../daemon/toolcall/session-cgroup.ts';
import { type PlainTree, plainTree } from '../lib/plain-tree.ts';
import { cannotRecycle, processWith } from '../lib/recycled.ts';

const GiB = 2 ** 30;

/** A manager over a plain tree, and processes that can be its wrappers. */
function setUp(
  t: TestContext,
  options: {
    changes?: Partial<Native>;
    availableBytes?: () => number;
    tree?: PlainTree;
    admission?: Record<string, string>;
  } = {},
) {
  const tree = options.tree ?? plainTree(t, options.changes);
  const { dir, root, native: addon } = tree;
  const config = configSchema(() => undefined).parse({
    admission: { wait: '60s', pressurePercent: '0', ...options.admission },
  });
  const host = hostSettings(config, { memTotalBytes: 16 * GiB });
  const fd = openSync(join(dir, 'log'), 'a');
  const log = createLogger({ level: 'info', fd });
  const records: CallRecord[] = [];
  const events: string[] = [];
  const unmanaged: string[] = [];
  const emit = (kind: string) => void events.push(kind);
  const enforcer = new UserEnforcer(addon, {
    stop: (event) => manager.stop(event),
    oom: (event) => manager.oom(event),
    emptied: (id) => manager.emptied(id),
  });
  const controller = new Controller({
    native: addon,
    root: root.cgroup,
    enforcer,
    freezer: new Freezer(addon, enforcer),
    config: () => config,
    poolSettings: () => host.pool,
    hostMemory: () => ({
      totalBytes: 16 * GiB,
      availableBytes: options.availableBytes?.() ?? 8 * GiB,
      swapFreeBytes: 0,
    }),
    log,
    emit,
  });
  const sessions = new SessionRegistry(addon, (session) => manager.sessionEnded(session));
  const manager: CallManager = new CallManager({
    native: addon,
    root,
    cooperative: false,
    enforcer,
    controller,
    sessions,
    classOf: (uid, id) => classes.of(uid, id),
    config: () => config,
    host: () => host,
    log,
    emit,
    onUnmanaged: (reason) => unmanaged.push(reason),
    onAdmitted: () => {},
    onFinished: (record) => records.push(record),
    learnedHighBytes: () => undefined,
  });
  const classes = new SessionClasses();
  const children: ChildProcess[] = [];
  /** @param child a process of which its pid is the wrapper's. */
  const wrapper = (
    child = spawn('sleep', ['1000'], { stdio: 'ignore' }),
    pid = child.pid ?? 0,
  ): PeerCred & { end(): Promise<void> } => {
    children.push(child);
    return {
      ...{ pid, uid: 0, gid: 0, pidfd: native().pidfdOpen(pid) },
      async end() {
        const exited = once(child, 'exit');
        child.kill('SIGKILL');
        await exited;
      },
    };
  };
  t.after(() => {
    manager.close();
    controller.close();
    sessions.close();
    enforcer.close();
    for (const child of children) child.kill('SIGKILL');
    closeSync(fd);
  });
  return {
    tree,
    enforcer,
    dir,
    root,
    manager,
    sessions,
    classes,
    controller,
    log,
    wrapper,
    records,
    events,
    unmanaged,
  };
}

type Bench = ReturnType<typeof setUp>;

/** Starts a call for a peer; it has to be answered at once. */
function start({ manager }: Bench, peer: PeerCred, request: object = {}): { answer: Answer; call: Call } {
  let answer: Answer | undefined;
  manager.start(peer, { argv: ['bash', '-c', 'true'], session: 'a', ...request }, (given) => {
    answer = given;
    return true;
  });
  assert.ok(answer !== undefined && 'call' in answer, answer?.kind);
  return { answer, call: answer.call };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test('a call is made with its limits, reported and removed', async (t) => {
  const bench = setUp(t);
  const { call } = start(bench, bench.wrapper(), { clone: true, intent: 'memory.high=1G memory.max=2G' });
  const path = join(bench.root.path, call.session.name, call.id);
  assert.equal(readFileSync(join(path, 'memory.high'), 'utf8').split('\n')[0], String(GiB));
  await turn();
  bench.manager.end(call, { code: 3 });
  await turn();
  assert.equal(existsSync(path), false);
  assert.equal(bench.records[0]?.exitCode, 3);
  assert.equal(bench.records[0]?.id, call.id);
  assert.equal([...bench.manager.calls()].length, 0);
});

test('what was asked for over the ceiling is told with the call', async (t) => {
  const bench = setUp(t);
  const { call } = start(bench, bench.wrapper(), { clone: true, intent: 'memory.high=1G memory.max=1T' });
  await turn();
  bench.manager.end(call, { code: 0 });
  await turn();
  const [decision] = bench.records[0]?.decisions ?? [];
  assert.deepEqual([decision?.action, decision?.atMs], ['clamp', 0]);
  assert.match(decision?.reason ?? '', /^memory\.max 1 TiB to [\d.]+ GiB$/);
});

for (const { events, said } of [
  { events: 'oom 0\noom_kill 0\noom_group_kill 0\n', said: /1 process left running/ },
  { events: 'oom 1\noom_kill 1\noom_group_kill 0\n', said: /1 process left running/ },
  // What is still there is on its way out.
  { events: 'oom 1\noom_kill 2\noom_group_kill 1\n', said: /^(?!.*left running).*killed for memory/ },
]) {
  test(`processes in the cgroup at the end, memory events ${events.split('\n')}`, async (t) => {
    const bench = setUp(t);
    const { call } = start(bench, bench.wrapper(), { clone: true });
    const path = join(bench.root.path, call.session.name, call.id);
    writeFileSync(join(path, 'cgroup.events'), 'populated 1\nfrozen 0\n');
    writeFileSync(join(path, 'pids.current'), '1\n');
    for (const file of ['memory.events', 'memory.events.local']) writeFileSync(join(path, file), events);
    const lines = await new Promise<readonly string[]>((resolve) => {
      bench.manager.end(call, { code: 0 }, resolve);
    });
    assert.match(lines.join('\n'), said);
  });
}

test('a hook is told of the last call of its command in its session, while that is news', async (t) => {
  const bench = setUp(t);
  const command = "npm 'test'";
  // As Claude Code hands it over, in a line of its own.
  const line = `source x && eval '${command.replaceAll("'", `'"'"'`)}' < /dev/null && pwd -P >| y`;
  const runs = async (oom: boolean) => {
    const { call } = start(bench, bench.wrapper(), { clone: true, argv: ['bash', '-c', line] });
    const path = join(bench.root.path, call.session.name, call.id);
    await turn();
    assert.equal(bench.manager.feedback(0, 'a', command), undefined, 'not before its end');
    for (const file of ['memory.events', 'memory.events.local'])
      writeFileSync(join(path, file), oom ? 'oom 1\noom_kill 1\n' : 'oom 0\noom_kill 0\n');
    bench.manager.end(call, { signal: 9 });
    await turn();
  };
  await runs(true);
  assert.match(bench.manager.feedback(0, 'a', command) ?? '', /^agentrm: killed for memory/);
  for (const [uid, session, other] of [
    [1, 'a', command],
    [0, 'b', command],
    [0, 'a', 'npm test'],
  ] as const) {
    assert.equal(bench.manager.feedback(uid, session, other), undefined);
  }
  await runs(false);
  assert.equal(bench.manager.feedback(0, 'a', command), undefined);
});

test('a call that ended by itself was not killed, whatever became of what it left', async (t) => {
  const bench = setUp(t);
  const { call } = start(bench, bench.wrapper(), { clone: true });
  bench.controller.kill(call, 'timeout', 'too long');
  bench.manager.end(call, { code: 3 });
  await turn();
  assert.deepEqual([bench.records[0]?.outcome, bench.records[0]?.report], ['ok', null]);
});

test('threads further up the tree: whose pids.max refused a fork is told by how many tasks there were', async (t) => {
  for (const [peak, said] of [
    ['7', /^agentrm: reached its pids\.max 7: 2 forks refused/],
    ['6', /^agentrm: 2 forks refused by a limit that is not its own \(its pids\.max is 7\)$/],
    // Before 6.1 the kernel does not say.
    [null, /^agentrm: reached its pids\.max 7/],
  ] as const) {
    const bench = setUp(t);
    const { call } = start(bench, bench.wrapper(), { clone: true, intent: 'pids.max=7' });
    const path = join(bench.root.path, call.session.name, call.id);
    writeFileSync(join(path, 'pids.events'), 'max 2\n');
    if (peak !== null) writeFileSync(join(path, 'pids.peak'), `${peak}\n`);
    bench.manager.end(call, { code: 0 });
    assert.match(bench.records[0]?.report?.line ?? '', said);
    rmSync(join(path, 'pids.peak'), { force: true });
    await turn();
  }
});

test('a session cgroup that was removed under us is made again', async (t) => {
  const bench = setUp(t);
  const first = start(bench, bench.wrapper(), { clone: true }).call;
  rmSync(join(bench.root.path, first.session.name), { recursive: true });
  const { answer, call } = start(bench, bench.wrapper(), { clone: true });
  assert.deepEqual(answer.notes, []);
  assert.ok(existsSync(join(bench.root.path, call.session.name, call.id, 'memory.max')));
  // The call whose cgroup has gone ends like any other, without figures.
  bench.manager.end(first, { code: 9 });
  await turn();
  assert.deepEqual(
    bench.records.map(({ id, exitCode, memory }) => [id, exitCode, memory.peakBytes]),
    [[first.id, 9, 0]],
  );
  assert.deepEqual([...bench.manager.calls()], [call]);
});

test('a kernel file that refuses leaves nothing behind and names path and errno', (t) => {
  const refuse = { code: 'EBUSY', message: "EBUSY: resource busy, write 'memory.max'" };
  const bench = setUp(t, {
    changes: {
      writeAt(dir, name, value) {
        if (name === 'memory.max') throw Object.assign(new Error(refuse.message), refuse);
        native().writeAt(dir, name, value);
      },
    },
  });
  let answer: Answer | undefined;
  bench.manager.start(bench.wrapper(), { argv: ['bash', '-c', 'true'] }, (given) => {
    answer = given;
    return true;
  });
  assert.equal(answer?.kind, 'none');
  assert.deepEqual(answer?.notes, [`agentrm: running unmanaged: ${refuse.message}`]);
  assert.deepEqual(bench.unmanaged, ['error']);
  assert.equal(bench.sessions.size, 0);
  assert.deepEqual(
    readdirSync(bench.root.path).filter((name) => /^s[0-9a-f]{12}$/.test(name)),
    [],
  );
});

test('without descriptors the command runs unmanaged, and nothing stays open', (t) => {
  const bench = setUp(t, {
    changes: {
      openAt(dir, name, write) {
        if (name === 'cgroup.events')
          throw Object.assign(new Error("EMFILE: too many open files, openat 'cgroup.events'"), {
            code: 'EMFILE',
          });
        return native().openAt(dir, name, write);
      },
    },
  });
  const peer = bench.wrapper();
  const before = readdirSync('/proc/self/fd').length;
  let answer: Answer | undefined;
  bench.manager.start(peer, { argv: ['bash', '-c', 'true'] }, (given) => {
    answer = given;
    return true;
  });
  assert.equal(answer?.kind, 'none');
  assert.match(answer?.notes[0] ?? '', /^agentrm: running unmanaged: EMFILE.*cgroup\.events/);
  assert.equal(bench.controller.size, 0);
  assert.equal(readdirSync('/proc/self/fd').length, before);
});

test('a live call outlives the loss of its connection while descriptors are short', async (t) => {
  let exhausted = false;
  const bench = setUp(t, {
    changes: {
      pidfdOpen(pid) {
        if (exhausted) throw Object.assign(new Error('EMFILE: pidfd_open'), { code: 'EMFILE' });
        return native().pidfdOpen(pid);
      },
    },
  });
  const { call } = start(bench, bench.wrapper(), { clone: true });
  exhausted = true;
  bench.manager.wrapperGone(call);
  assert.equal(call.phase, 'live');
  assert.equal(call.killCode, undefined);
});

test('a token moves one process of its own user, once', async (t) => {
  const bench = setUp(t);
  const peer = bench.wrapper();
  const { answer, call } = start(bench, peer);
  assert.equal(answer.kind, 'move');
  const token = answer.kind === 'move' ? answer.token : '';
  await assert.rejects(bench.manager.place({ ...peer, uid: 1234 }, token), /not your call/);
  await assert.rejects(bench.manager.place(peer, `${token}x`), /no such call/);
  await bench.manager.place(peer, token);
  const path = join(bench.root.path, call.session.name, call.id, 'cgroup.procs');
  assert.equal(readFileSync(path, 'utf8'), String(peer.pid));
  await assert.rejects(bench.manager.place(peer, token), /no such call/);
});

test('the token of a call that ended is void', async (t) => {
  const bench = setUp(t);
  const peer = bench.wrapper();
  const { answer, call } = start(bench, peer);
  bench.manager.end(call, { code: 0 });
  assert.equal(call.token, undefined);
  await assert.rejects(bench.manager.place(peer, answer.kind === 'move' ? answer.token : ''), /no such call/);
});

test('a process that died meanwhile is not placed', async (t) => {
  const bench = setUp(t);
  const { answer } = start(bench, bench.wrapper());
  const child = bench.wrapper();
  await child.end();
  const token = answer.kind === 'move' ? answer.token : '';
  await assert.rejects(bench.manager.place(child, token), /ESRCH/);
  assert.deepEqual(bench.unmanaged, ['gone']);
});

describe('the command of a wrapper that was answered too late', () => {
  /** A shell that is a wrapper, and forks what it is told to. */
  const shell = (t: TestContext, bench: Bench) => {
    const child = spawn('sh', [], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
    const peer = bench.wrapper(child);
    t.after(() => process.kill(-peer.pid, 'SIGKILL'));
    return {
      peer,
      tell: (line: string) => void child.stdin?.write(`${line}\n`),
      async fork(line = 'sleep 1000 &'): Promise<number> {
        const before = childrenOf(peer.pid);
        child.stdin?.write(`${line}\n`);
        for (;;) {
          for (const pid of childrenOf(peer.pid)) if (!before.includes(pid)) return pid;
          await turn();
        }
      },
    };
  };
  /** A manager that tells of each move; `before` is what happens right before the kernel looks for the process. */
  const moves = (t: TestContext, before: (pid: number) => Promise<void> = async () => {}) => {
    const moved: { pid: number; dir: string }[] = [];
    let under = 0;
    let most = 0;
    const bench = setUp(t, {
      changes: {
        async writeAtAsync(dir, name, value) {
          if (name !== 'cgroup.procs') return native().writeAtAsync(dir, name, value);
          moved.push({ pid: Number(value), dir: readlinkSync(`/proc/self/fd/${dir}`) });
          under += 1;
          most = Math.max(most, under);
          await before(Number(value));
          await native().writeAtAsync(dir, name, value);
          under -= 1;
        },
      },
    });
    const pids = () => moved.map(({ pid }) => pid);
    // A plain tree does not show who is in it, so that each of two passes moves all there are.
    const twice = async (...all: number[]) => {
      while (!all.every((pid) => pids().filter((one) => one === pid).length === 2)) await turn();
    };
    return { bench, moved, pids, twice, most: () => most };
  };

  test('is moved with all that there is below it, parents first, calls in turn, one process at a time', async (t) => {
    const { bench, moved, pids, twice, most } = moves(t);
    const [first, second] = [shell(t, bench), shell(t, bench)];
    const parent = await first.fork('(sleep 1000 & sleep 1000 & wait) &');
    while (childrenOf(parent).length < 2) await turn();
    const below = childrenOf(parent);
    const other = await second.fork();
    const calls = [first, second].map(({ peer }) => start(bench, peer).call);
    for (const call of calls) bench.manager.placeLate(call);
    await twice(parent, ...below, other);
    assert.deepEqual(pids().slice(0, 4), [parent, other, ...below]);
    const [one = assert.fail(), two = assert.fail()] = calls;
    for (const { pid, dir } of moved) assert.ok(dir.endsWith((pid === other ? two : one).id));
    assert.equal(most(), 1);
  });

  test('is moved with what is forked while others are moved', async (t) => {
    let late = 0;
    const { bench, twice } = moves(t, async () => {
      late ||= await wrapper.fork();
    });
    const wrapper = shell(t, bench);
    const early = await wrapper.fork();
    bench.manager.placeLate(start(bench, wrapper.peer).call);
    await twice(early);
    assert.notEqual(late, 0);
    await twice(late);
  });

  test('is not moved any more once its call has ended', async (t) => {
    const { bench, pids, twice } = moves(t, async () => bench.manager.end(call, { code: 0 }));
    const [wrapper, other] = [shell(t, bench), shell(t, bench)];
    const early = await wrapper.fork();
    const later = await wrapper.fork();
    const { call } = start(bench, wrapper.peer);
    // Its cgroup stays, with what the command has left there.
    writeFileSync(join(bench.root.path, call.session.name, call.id, 'cgroup.events'), 'populated 1\n');
    const another = await other.fork();
    const next = start(bench, other.peer).call;
    bench.manager.placeLate(call);
    bench.manager.placeLate(next);
    await twice(another);
    assert.equal(bench.manager.calls().next().value, call);
    assert.deepEqual([pids().includes(early), pids().includes(later)], [true, false]);
  });

  test('is not taken for a process that got its number', { skip: cannotRecycle }, async (t) => {
    let other: ChildProcess | undefined;
    const { bench, pids, twice } = moves(t, async () => {
      if (other !== undefined) return;
      wrapper.tell(`kill -9 ${gone}; wait ${gone}`);
      other = await processWith(gone);
      t.after(() => other?.kill('SIGKILL'));
    });
    const wrapper = shell(t, bench);
    const early = await wrapper.fork();
    const gone = await wrapper.fork();
    bench.manager.placeLate(start(bench, wrapper.peer).call);
    await twice(early);
    assert.equal(other?.pid, gone);
    assert.ok(!pids().includes(gone));
  });
});

describe('a process that got the number of a peer', { skip: cannotRecycle }, () => {
  /** A peer that has ended, and another process with its number. */
  const recycled = async (t: TestContext, peer: ReturnType<Bench['wrapper']>) => {
    await peer.end();
    const child = await processWith(peer.pid);
    t.after(() => child.kill('SIGKILL'));
    return child;
  };

  test('is not taken for it when that asks to run a command', async (t) => {
    const bench = setUp(t);
    const peer = bench.wrapper();
    await recycled(t, peer);
    let kind = '';
    bench.manager.start(peer, { argv: ['bash'], clone: true }, (answer) => {
      kind = answer.kind;
      return true;
    });
    assert.deepEqual([kind, bench.unmanaged], ['none', ['gone']]);
  });

  test('is not taken for it when that has waited for admission', async (t) => {
    let availableBytes = 0;
    const bench = setUp(t, { availableBytes: () => availableBytes });
    const peer = bench.wrapper();
    let kind = '';
    bench.manager.start(peer, { argv: ['bash'], clone: true }, (answer) => {
      kind = answer.kind;
      return true;
    });
    await recycled(t, peer);
    availableBytes = 16 * GiB;
    while (kind === '') await new Promise((resolve) => setTimeout(resolve, 10));
    assert.deepEqual([kind, bench.unmanaged], ['none', ['gone']]);
  });

  test('is not taken for it when that is placed, before or while it is moved', async (t) => {
    let meanwhile = async () => {};
    const bench = setUp(t, {
      changes: {
        async writeAtAsync(dir, name, value) {
          if (name === 'cgroup.procs') await meanwhile();
          await native().writeAtAsync(dir, name, value);
        },
      },
    });
    const token = () => {
      const { answer } = start(bench, bench.wrapper());
      return answer.kind === 'move' ? answer.token : '';
    };
    const before = bench.wrapper();
    await recycled(t, before);
    await assert.rejects(bench.manager.place(before, token()), { code: 'ESRCH' });
    const peer = bench.wrapper();
    meanwhile = async () => void (await recycled(t, peer));
    await assert.rejects(bench.manager.place(peer, token()), { code: 'ESRCH' });
    assert.deepEqual(bench.unmanaged, ['gone', 'gone']);
  });

  test('keeps its call, whoever still holds the connection of the one before', async (t) => {
    const bench = setUp(t);
    const before = bench.wrapper();
    const peer = bench.wrapper(await recycled(t, before));
    assert.equal(peer.pid, before.pid);
    const { call } = start(bench, peer, { clone: true });
    assert.equal(bench.manager.rejoin(before, call.id), undefined);
    assert.equal(bench.manager.rejoin(peer, call.id), call);
  });
});

test('a wrapper that has died loses its call', async (t) => {
  const bench = setUp(t);
  const peer = bench.wrapper();
  const { call } = start(bench, peer, { clone: true });
  await peer.end();
  bench.manager.wrapperGone(call);
  assert.equal(bench.records[0]?.outcome, 'lost');
});

describe('what an earlier daemon left and cannot be taken over', () => {
  /** As the kernel says of a cgroup that holds processes, and refuses to remove it. */
  const populate = (path: string, populated = true) =>
    writeFileSync(join(path, 'cgroup.events'), `populated ${populated ? 1 : 0}\nfrozen 0\n`);
  const rmdirAt = (parent: number, name: string): void => {
    const path = join(readlinkSync(`/proc/self/fd/${parent}`), name);
    const entries = readdirSync(path, { withFileTypes: true });
    const isPopulated = readFileSync(join(path, 'cgroup.events'), 'utf8').startsWith('populated 1');
    if (isPopulated || entries.some((entry) => entry.isDirectory()))
      throw Object.assign(new Error('EBUSY: rmdir'), { code: 'EBUSY' });
    rmSync(path, { recursive: true });
  };
  const pathOf = ({ root }: Bench, { session, id }: Call) => join(root.path, session.name, id);
  /** Two calls of a session, or of two, of which the next daemon cannot take over the first. */
  const leave = (t: TestContext, sessions: readonly string[], changes: Partial<Native> = {}) => {
    const bench = setUp(t, { changes: { rmdirAt, ...changes } });
    const calls = sessions.map((session) => start(bench, bench.wrapper(), { clone: true, session }).call);
    const [broken = assert.fail()] = calls;
    for (const call of calls) populate(pathOf(bench, call));
    populate(join(bench.root.path, broken.session.name));
    writeFileSync(join(pathOf(bench, broken), 'cgroup.freeze'), '1\n');
    return { bench, broken };
  };
  const spoil = ({ cgroup }: Call) => {
    const saved = JSON.parse(cgroup.getState(STATE_XATTR) ?? assert.fail());
    cgroup.setState(
      STATE_XATTR,
      JSON.stringify({ ...saved, wrapper: null, ancestors: [], agentProcess: null }),
    );
  };
  const next = (t: TestContext, { tree }: Bench) => {
    const bench = setUp(t, { tree });
    const forget = t.mock.method(bench.enforcer, 'forget');
    const { sessions, manager, log, root } = bench;
    const adopted = adopt({ roots: [root], sessions, manager, log });
    return { ...bench, adopted, forgotten: forget.mock.calls.map(({ arguments: [cgroup] }) => cgroup.name) };
  };
  const first = (path: string, file: string) => readFileSync(join(path, file), 'utf8').split('\n')[0];
  const goesOn = (bench: Bench, call: Call) => {
    const path = pathOf(bench, call);
    assert.equal(readFileSync(join(path, 'cgroup.freeze'), 'utf8')[0], '0');
    assert.equal(readFileSync(join(path, 'memory.high'), 'utf8').slice(0, 3), 'max');
    assert.deepEqual(
      [path, join(path, '..')].map((each) => first(each, 'cgroup.kill')),
      ['', ''],
    );
  };

  for (const sessions of [
    ['a', 'a'],
    ['a', 'b'],
  ])
    test(`goes on, and the rest is taken over (sessions ${sessions})`, (t) => {
      const { bench, broken } = leave(t, sessions);
      spoil(broken);
      bench.manager.close();
      const again = next(t, bench);
      assert.equal(again.adopted.calls, 1);
      assert.deepEqual(
        [...again.manager.calls()].map(({ id }) => id === broken.id),
        [false],
      );
      assert.deepEqual(again.forgotten, [broken.id]);
      goesOn(bench, broken);
    });

  test('goes on for want of descriptors, and is not known by halves', (t) => {
    let exhausted = false;
    const { bench, broken } = leave(t, ['a'], {
      openAt(dir, name, write) {
        if (exhausted) throw Object.assign(new Error('EMFILE: openat'), { code: 'EMFILE' });
        return native().openAt(dir, name, write);
      },
    });
    bench.manager.close();
    exhausted = true;
    const again = next(t, bench);
    assert.equal(again.adopted.calls, 0);
    assert.deepEqual([again.controller.size, [...again.manager.calls()]], [0, []]);
    goesOn(bench, broken);
  });

  test('ends with its session', async (t) => {
    const { bench, broken } = leave(t, ['a']);
    spoil(broken);
    bench.manager.close();
    const { sessions, events } = next(t, bench);
    const [session = assert.fail()] = sessions.all();
    const path = join(bench.root.path, session.name);
    assert.ok(!events.includes('session-end'));
    sessions.endIfOver(session);
    assert.equal(first(path, 'cgroup.kill'), '1');
    for (const each of [path, pathOf(bench, broken)]) populate(each, false);
    while (existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 10));
  });
});

describe('a call whose daemon was killed as soon as it had answered', () => {
  /** The next daemon. */
  const next = (t: TestContext, before: Bench): Bench => {
    const bench = setUp(t, { tree: before.tree });
    const { sessions, manager, log, root } = bench;
    assert.equal(adopt({ roots: [root], sessions, manager, log }).calls, 1);
    return bench;
  };
  /** An agent, and the wrapper that it has started, perhaps by a shell. */
  const family = (t: TestContext, ...command: string[]) => {
    const agent = spawn('timeout', ['1000', ...command], { stdio: 'ignore' });
    let pid = agent.pid ?? 0;
    pid = childOf(pid);
    if (command[0] === 'sh') pid = childOf(pid);
    t.after(() => process.kill(pid, 'SIGKILL'));
    return { agent, pid };
  };
  const childOf = (pid: number): number => {
    for (;;) for (const child of childrenOf(pid)) return child;
  };
  const isKilled = ({ root }: Bench, { session, id }: Call) =>
    readFileSync(join(root.path, session.name, id, 'cgroup.kill'), 'utf8') === '1';

  test('ends with its agent, which ended before the next one came', async (t) => {
    const bench = setUp(t);
    const { agent, pid } = family(t, 'sleep', '1000');
    const { call } = start(bench, bench.wrapper(agent, pid), { clone: true });
    bench.manager.close();
    agent.kill('SIGKILL');
    await once(agent, 'exit');
    assert.ok(next(t, bench).events.includes('session-end'));
    assert.ok(isKilled(bench, call));
  });

  test('ends with its agent, of which no more was known than that a shell stands between', async (t) => {
    const bench = setUp(t);
    const { agent, pid } = family(t, 'sh', '-c', 'sleep 1000; :');
    const { call } = start(bench, bench.wrapper(agent, pid), { clone: true });
    bench.manager.close();
    const { events } = next(t, bench);
    assert.ok(!events.includes('session-end'));
    agent.kill('SIGKILL');
    while (!events.includes('session-end')) await turn();
    assert.ok(isKilled(bench, call));
  });

  test('is as old as it was, though the clock was set meanwhile', (t) => {
    const bench = setUp(t);
    const { call } = start(bench, bench.wrapper(), { clone: true });
    // What a daemon saves whose clock is an hour behind this one's.
    const HOUR_MS = 3_600_000;
    for (const cgroup of [call.cgroup, call.sessionCgroup.cgroup]) {
      const saved = JSON.parse(cgroup.getState(STATE_XATTR) ?? assert.fail());
      saved.startedAtMs -= HOUR_MS;
      saved.monotonicZeroMs -= HOUR_MS;
      cgroup.setState(STATE_XATTR, JSON.stringify(saved));
    }
    const { startedAtMs, session } = call;
    bench.manager.close();
    const [again = assert.fail()] = next(t, bench).manager.calls();
    for (const [one, other] of [
      [again.startedAtMs, startedAtMs],
      [again.session.startedAtMs, session.startedAtMs],
    ] as const)
      assert.equal(Math.round(one - other), 0);
  });

  test('is stopped by news of its own time only', (t) => {
    const bench = setUp(t);
    start(bench, bench.wrapper(), { clone: true });
    const before = native().monotonicNs();
    bench.manager.close();
    const { manager, events } = next(t, bench);
    const [call = assert.fail()] = manager.calls();
    const stop = (timeNs: bigint) =>
      manager.stop({
        ...{ cgroupId: call.cgroup.id, pid: 1, comm: '', usageBytes: 0, reason: 'line', signalled: true },
        timeNs,
      });
    stop(before);
    assert.ok(!events.includes('freeze'));
    stop(native().monotonicNs());
    assert.ok(events.includes('freeze'));
  });

  test('begins a cycle of which the one before had not begun', (t) => {
    const bench = setUp(t);
    const { call } = start(bench, bench.wrapper(), { clone: true });
    // It was killed before it could save that.
    call.cycle += 1;
    bench.manager.close();
    const [again = assert.fail()] = next(t, bench).manager.calls();
    assert.ok(again.cycle > call.cycle);
  });
});

test('a wrapper that came back ends its call itself, even if its death is seen first', async (t) => {
  const bench = setUp(t);
  const peer = bench.wrapper();
  const { call } = start(bench, peer, { clone: true });
  const before = readdirSync('/proc/self/fd').length;
  // Again and again, as a hostile one would: nothing piles up.
  for (let round = 0; round < 50; round += 1) {
    bench.manager.wrapperGone(call);
    assert.equal(bench.manager.rejoin(peer, call.id), call);
  }
  assert.equal(readdirSync('/proc/self/fd').length, before);
  await peer.end();
  await turn();
  assert.equal(call.phase, 'live');
  bench.manager.end(call, { code: 7 });
  assert.equal(bench.records[0]?.outcome, 'ok');
  assert.equal(bench.records[0]?.exitCode, 7);
});

test('a call is rejoined by its own wrapper only', (t) => {
  const bench = setUp(t);
  const peer = bench.wrapper();
  const { call } = start(bench, peer, { clone: true });
  assert.equal(bench.manager.rejoin(bench.wrapper(), call.id), undefined);
  assert.equal(bench.manager.rejoin(bench.wrapper(), 'c000000000000'), undefined);
  assert.equal(bench.manager.rejoin({ ...peer, uid: 1234 }, call.id), undefined);
  assert.equal(bench.manager.rejoin(peer, call.id), call);
});

test('calls wait in order; one that gave up makes no cgroup and holds nobody up', async (t) => {
  let availableBytes = 0;
  const bench = setUp(t, { availableBytes: () => availableBytes });
  const served: string[] = [];
  const ask = (session: string) =>
    bench.manager.start(bench.wrapper(), { argv: ['bash'], session, clone: true }, () => {
      served.push(session);
      return true;
    });
  const first = ask('first');
  const second = ask('second');
  assert.ok(first !== undefined && second !== undefined);
  ask('third');
  assert.equal(bench.manager.waiting, 3);
  first();
  first();
  availableBytes = 16 * GiB;
  // There is room again, but it is not its turn.
  ask('fourth');
  assert.deepEqual(served, []);
  while (bench.manager.waiting > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual(served, ['second', 'third', 'fourth']);
  assert.deepEqual(
    [...bench.sessions.all()].map(({ id }) => id),
    ['second', 'third', 'fourth'],
  );
});

test('who comes first in order does not wait behind the others', async (t) => {
  let availableBytes = 0;
  const bench = setUp(t, { availableBytes: () => availableBytes });
  const served: string[] = [];
  const ask = (session: string, name: string) =>
    bench.manager.start(
      bench.wrapper(),
      { argv: ['bash'], session, intent: `class=${name}`, clone: true },
      () => {
        served.push(session);
        return true;
      },
    );
  ask('build', 'background');
  ask('helper', 'subagent');
  ask('user', 'interactive');
  ask('another user', 'interactive');
  assert.deepEqual(served, []);
  availableBytes = 16 * GiB;
  // There is room now, and only lower classes would wait before it; but its own does.
  ask('a third user', 'interactive');
  while (bench.manager.waiting > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual(served, ['user', 'another user', 'a third user', 'helper', 'build']);
});

test('who comes first in order is not kept waiting by those behind it', (t) => {
  let availableBytes = 0;
  const bench = setUp(t, { availableBytes: () => availableBytes });
  const ask = (name: string) => {
    let served = false;
    bench.manager.start(
      bench.wrapper(),
      { argv: ['bash'], session: name, intent: `class=${name}`, clone: true },
      () => {
        served = true;
        return true;
      },
    );
    return served;
  };
  assert.equal(ask('background'), false);
  availableBytes = 16 * GiB;
  assert.deepEqual([ask('interactive'), ask('background')], [true, false]);
});

test('with too many waiting before it a call is answered all the same', (t) => {
  const bench = setUp(t, { availableBytes: () => 0 });
  const peer = bench.wrapper();
  let answers = 0;
  const ask = () =>
    bench.manager.start(peer, { argv: ['bash'], session: 'a', clone: true }, () => {
      answers += 1;
      return true;
    });
  while (bench.manager.waiting < 1024) ask();
  assert.equal(answers, 0);
  assert.equal(ask(), undefined);
  assert.equal(answers, 1);
  assert.equal([...bench.manager.calls()].length, 1);
});

describe('calls at a time', () => {
  const ask = ({ manager }: Bench, peer: PeerCred): Answer => {
    const answers: Answer[] = [];
    manager.start(peer, { argv: ['bash', '-c', 'true'], session: 'a', clone: true }, (answer) => {
      answers.push(answer);
      return true;
    });
    return answers[0] ?? assert.fail('not answered at once');
  };
  const noteOf = (answer: Answer) => (answer.kind === 'none' ? answer.notes.join('\n') : answer.kind);

  test('are one of a wrapper, however often it asks', async (t) => {
    const bench = setUp(t);
    const peer = bench.wrapper();
    const { call } = start(bench, peer, { clone: true });
    assert.equal(noteOf(ask(bench, peer)), 'agentrm: running unmanaged: its wrapper has a call already');
    assert.deepEqual([...bench.manager.calls()], [call]);
    assert.deepEqual(bench.unmanaged, ['limit']);
    assert.ok(bench.events.includes('unmanaged'));
    assert.equal(ask(bench, bench.wrapper()).kind, 'clone');
    bench.manager.end(call, { code: 0 });
    assert.equal(ask(bench, peer).kind, 'clone');
  });

  test('are so many of a user, those counted that left processes; others and root have theirs', async (t) => {
    const bench = setUp(t, { admission: { perUid: '2' } });
    const of = (uid: number): PeerCred => ({ ...bench.wrapper(), uid });
    const [, call] = [1000, 1000].map((uid) => start(bench, of(uid), { clone: true }).call);
    const full =
      'agentrm: running unmanaged: uid 1000 has 2 calls, as many as it may have at a time (admission.perUid)';
    assert.equal(noteOf(ask(bench, of(1000))), full);
    for (const uid of [1001, 0, 0, 0]) assert.equal(ask(bench, of(uid)).kind, 'clone');
    assert.ok(call !== undefined);
    const events = join(bench.root.path, call.session.name, call.id, 'cgroup.events');
    writeFileSync(events, 'populated 1\n');
    await new Promise((resolve) => bench.manager.end(call, { code: 0 }, resolve));
    await turn();
    assert.equal(noteOf(ask(bench, of(1000))), full);
    writeFileSync(events, 'populated 0\n');
    bench.manager.emptied(call.cgroup.id);
    assert.equal(ask(bench, of(1000)).kind, 'clone');
    assert.deepEqual(bench.unmanaged, ['limit', 'limit']);
  });
});

test('an answer that nobody takes leaves no call', async (t) => {
  const bench = setUp(t);
  bench.manager.start(bench.wrapper(), { argv: ['bash'], session: 'a' }, () => false);
  await turn();
  assert.equal([...bench.manager.calls()].length, 0);
  assert.equal(bench.records[0]?.outcome, 'lost');
});

test('a call that ends while the daemon stops is reported and removed', (t) => {
  const bench = setUp(t);
  const { call } = start(bench, bench.wrapper(), { clone: true });
  const path = join(bench.root.path, call.session.name, call.id);
  writeFileSync(join(path, 'cgroup.events'), 'populated 1\n');
  bench.manager.end(call, { code: 0 });
  assert.equal(bench.records.length, 0);
  writeFileSync(join(path, 'cgroup.events'), 'populated 0\n');
  assert.equal(bench.controller.size, 1);
  bench.manager.close();
  assert.equal(bench.records.length, 1);
  assert.equal(existsSync(path), false);
  assert.equal(bench.controller.size, 0, 'nothing is left for a next daemon');
  assert.throws(() => call.cgroup.read('cgroup.events'), { code: 'EBADF' });
});

describe('the class of a session', () => {
  // As the kernel does: a shorter value leaves nothing of the one before.
  const writeAt = (fd: number, file: string, value: string) =>
    writeFileSync(`/proc/self/fd/${fd}/${file}`, value);
  const weights = (bench: Bench, ...names: string[]) =>
    ['cpu.weight', 'io.weight'].map((file) => {
      const value = (name: string) => readFileSync(join(bench.root.path, ...names, name), 'utf8').trim();
      return file === 'cpu.weight' && value('cpu.idle') === '1' ? 'idle' : value(file);
    });

  test('is the weight of its calls, unless somebody said more', (t) => {
    const bench = setUp(t, { changes: { writeAt } });
    bench.classes.set('0:a', 'background');
    const { call } = start(bench, bench.wrapper(), { clone: true });
    const declared = start(bench, bench.wrapper(), {
      clone: true,
      intent: 'cpu.weight=42 class=subagent',
    }).call;
    const other = start(bench, bench.wrapper(), { clone: true, session: 'b' }).call;
    const unnamed = start(bench, bench.wrapper(), { clone: true, session: undefined }).call;
    const [{ name }] = [call.session];
    assert.deepEqual(weights(bench, name, call.id), ['idle', '10']);
    assert.deepEqual(weights(bench, name, declared.id), ['42', '50']);
    for (const one of [other, unnamed]) {
      assert.deepEqual(weights(bench, one.session.name, one.id), ['100', '100']);
      assert.equal(one.limits.class, 'interactive');
    }
    assert.deepEqual([call.limits.class, declared.limits.class], ['background', 'subagent']);
    // The most important of its calls.
    assert.deepEqual(weights(bench, name), ['42', '50']);
  });

  test('counts against others as long as its most important call lives', async (t) => {
    const bench = setUp(t, { changes: { writeAt } });
    const begin = (intent: string) => start(bench, bench.wrapper(), { clone: true, intent }).call;
    const burner = begin('class=background');
    const { name } = burner.session;
    assert.deepEqual(weights(bench, name), ['idle', '10']);
    const user = begin('class=interactive');
    const helper = begin('class=subagent');
    assert.deepEqual(weights(bench, name), ['100', '100']);
    const end = async (call: Call) => {
      bench.manager.end(call, { code: 0 });
      await turn();
      return weights(bench, name);
    };
    await turn();
    assert.deepEqual(await end(user), ['50', '50']);
    assert.deepEqual(await end(helper), ['idle', '10']);
    assert.deepEqual(weights(bench, name, burner.id), ['idle', '10']);
  });

  test('is known again by the next daemon, whatever this one wrote', (t) => {
    const bench = setUp(t, { changes: { writeAt } });
    const { call } = start(bench, bench.wrapper(), { clone: true });
    const again = new SessionCgroup(bench.root, call.session.name, bench.manager.usual(0), undefined);
    t.after(() => again.close());
    again.raiseWeights({ cpuWeight: 0, ioWeight: 10 });
    assert.deepEqual(weights(bench, call.session.name), ['idle', '10']);
  });

  test('that changes gives running calls its weights and leaves their other limits', (t) => {
    const bench = setUp(t, { changes: { writeAt } });
    bench.classes.set('0:a', 'background');
    const { call } = start(bench, bench.wrapper(), { clone: true, intent: 'memory.high=1G memory.max=2G' });
    const declared = start(bench, bench.wrapper(), { clone: true, intent: 'cpu.weight=42' }).call;
    const other = start(bench, bench.wrapper(), { clone: true, session: 'b' }).call;
    const { name } = call.session;
    const before = readFileSync(join(bench.root.path, name, call.id, 'memory.max'), 'utf8');
    bench.manager.reclass('0:a', 'interactive');
    assert.deepEqual(weights(bench, name, call.id), ['100', '100']);
    assert.deepEqual(weights(bench, name, declared.id), ['42', '100']);
    assert.deepEqual(weights(bench, other.session.name, other.id), ['100', '100']);
    assert.deepEqual(weights(bench, name), ['100', '100']);
    assert.equal(readFileSync(join(bench.root.path, name, call.id, 'memory.max'), 'utf8'), before);
    bench.manager.reclass('0:a', 'background');
    assert.deepEqual(weights(bench, name, call.id), ['idle', '10']);
    assert.deepEqual(
      weights(bench, other.session.name, other.id),
      ['100', '100'],
      'it is of another session',
    );
    assert.deepEqual(weights(bench, name), ['42', '10'], 'down too: the session has nobody else');
    assert.equal(bench.events.filter((kind) => kind === 'session-class').length, 2);
    bench.manager.reclass('0:nobody', 'background');
    assert.equal(bench.events.filter((kind) => kind === 'session-class').length, 2);
  });

  test('that changes gives running calls its place in the order for the pool, and its guarantee', (t) => {
    const bench = setUp(t, { changes: { writeAt } });
    bench.classes.set('0:a', 'background');
    const { call } = start(bench, bench.wrapper(), { clone: true });
    const other = start(bench, bench.wrapper(), { clone: true, session: 'b' }).call;
    const yields = () => [call, other].map(({ poolLineBytes }) => poolLineBytes > 0);
    assert.deepEqual([yields(), call.sessionCgroup.guaranteedBytes], [[true, false], 0]);
    bench.manager.reclass('0:a', 'interactive');
    assert.deepEqual(yields(), [false, true], 'it is the older one');
    assert.equal(call.sessionCgroup.guaranteedBytes, other.sessionCgroup.guaranteedBytes);
    bench.manager.reclass('0:a', 'background');
    assert.deepEqual(yields(), [true, false]);
  });

  test('that changes while it has no call is the weight of its next one, and of the session with it', async (t) => {
    const bench = setUp(t, { changes: { writeAt } });
    const { call } = start(bench, bench.wrapper(), { clone: true });
    bench.sessions.addOwner(call.session, processStat(process.pid) ?? assert.fail());
    await turn();
    bench.manager.end(call, { code: 0 });
    await turn();
    assert.deepEqual(weights(bench, call.session.name), ['100', '100']);
    bench.classes.set('0:a', 'background');
    bench.manager.reclass('0:a', 'background');
    const next = start(bench, bench.wrapper(), { clone: true }).call;
    assert.equal(next.session, call.session);
    assert.deepEqual(weights(bench, call.session.name, next.id), ['idle', '10']);
    assert.deepEqual(weights(bench, call.session.name), ['idle', '10']);
  });

  test('of a call whose cgroup has gone changes nothing else', (t) => {
    const bench = setUp(t, { changes: { writeAt } });
    const gone = start(bench, bench.wrapper(), { clone: true }).call;
    const { call } = start(bench, bench.wrapper(), { clone: true });
    rmSync(join(bench.root.path, gone.session.name, gone.id), { recursive: true });
    bench.manager.reclass('0:a', 'background');
    assert.deepEqual(weights(bench, call.session.name, call.id), ['idle', '10']);
  });
});
