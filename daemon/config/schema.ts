// SPDX-License-Identifier: Apache-2.0
import * as z from 'zod';
import { MOST_CALLS } from '../control/types.ts';
import { type CallClass, quoteWord } from '../toolcall/intent.ts';
import { proxy } from './proxy.ts';
import {
  autoPath,
  autoSize,
  decimal,
  duration,
  flag,
  limits,
  listenAddress,
  path,
  refuse,
  size,
  sizeOrNone,
  socketPath,
  whole,
} from './values.ts';

/*
 * Every setting of agentrmd with its default and the reason for it. The shipped file, deploy/agentrmd.yaml,
 * is made from this by sample.ts. In the file a time or a size has its unit in the value (`wait: 5s`); in
 * the program it has it in the name (`waitMs`).
 */

/** The longest pattern of a rule; the commands that it is searched in are at most 16 KiB. */
const PATTERN_MAX = 256;
/** The highest uid: -1 is "no user" to the kernel. */
const UID_MAX = 2 ** 32 - 2;

const log = z
  .strictObject({
    level: z
      .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal'])
      .prefault('info')
      .describe(
        'info tells of the start, of every call that was killed and of what does not work, and is silent ' +
          'otherwise.',
      ),
    commands: z
      .enum(['firstWord', 'full', 'none'])
      .prefault('firstWord')
      .describe(
        'How much of a command is kept in logs, events and the list of calls. Arguments hold passwords ' +
          'and tokens often enough; the first word (python3, make) is what one needs to know a call again.',
      ),
  })
  .prefault({})
  .describe('What is logged: JSON lines on standard output.');

const shortage = z
  .strictObject({
    stepPercent: decimal(0.1, 5)
      .prefault('1')
      .describe(
        'Calls have an order: interactive before subagent before background, older before newer. The first may use ' +
          'the whole budget; interactive calls behind it stop growing one such step below it, subagents two, ' +
          'background three, and all but the first of each class three steps sooner. What is left is for those before ' +
          'them: 1 % of 12 GiB is what a core fills in a twentieth of a second. The lowest line is six steps below the ' +
          'budget, and from twelve below it on calls are watched closely: with 5 % that is from 40 % of the budget on, ' +
          'and more would make it the rule.',
      ),
    roomPercent: decimal(0.1, 25)
      .prefault('1')
      .describe(
        'A frozen call goes on once so much is free below its line. Less would only freeze it again.',
      ),
    leastFreeze: duration()
      .prefault('100ms')
      .describe('No freeze is shorter. Handing a call to the freezer and back takes a millisecond or two.'),
    rotate: duration()
      .prefault('10s')
      .describe(
        'A call that is frozen for so long takes its turn with others of its class, or uses what the host has ' +
          'beyond the budget. Bursts of recorded sessions are over by then.',
      ),
    pass: duration()
      .prefault('1s')
      .describe(
        'How long it may go on then; with BPF no further than the host can bear. The median command takes 2.5 s.',
      ),
    deadline: duration()
      .prefault('60s')
      .describe(
        'A call that is frozen for so long, with nothing else to be done, is killed. Half of the 120 s after which ' +
          'an agent gives up, so that it learns why.',
      ),
    lastResort: duration()
      .prefault('3s')
      .describe(
        'How long the first in order may need memory that others hold, and the host has none beyond the budget, ' +
          'before one of them is killed for it: of the lowest class, the one that frees most. Bursts that end by ' +
          'themselves last 1 to 3 s.',
      ),
  })
  .transform(({ leastFreeze, rotate, pass, deadline, lastResort, ...rest }) => ({
    ...rest,
    leastFreezeMs: leastFreeze,
    rotateMs: rotate,
    passMs: pass,
    deadlineMs: deadline,
    lastResortMs: lastResort,
  }))
  .prefault({})
  .describe('What happens when all calls together want more than the budget.');

const guarantee = z
  .strictObject({
    interactive: sizeOrNone()
      .prefault('64M')
      .describe(
        'Of a session with interactive calls: a shell, an interpreter and the files that it reads again and again, ' +
          'so that it answers at once while others stream through the page cache.',
      ),
    subagent: sizeOrNone().prefault('0').describe('Of a session with none but subagent calls.'),
    background: sizeOrNone().prefault('0').describe('Of a session with none but background calls.'),
  } satisfies Record<CallClass, z.ZodType>)
  .prefault({})
  .describe(
    'Memory that the kernel does not take from a session for others while it uses no more (memory.low). Nor are its ' +
      'calls stopped while others have used up the pool, as long as the budget, less the step that is for the first ' +
      'call, or the host has any left: what a session does not use is there for all, and does not come back at once. ' +
      'Those that add up to more than the pool are kept in the order of the calls.',
  );

const pool = z
  .strictObject({
    reserve: autoSize()
      .prefault('auto')
      .describe(
        'Memory that is not for calls but for the kernel, services and the agents themselves. auto: 25 % ' +
          'of the first 4 GiB, 20 % of the next 4, 10 % of the next 8, 6 % up to 128 GiB, 2 % beyond, as ' +
          'Google Kubernetes Engine reserves on a node: 2.6 GiB of 16.',
      ),
    budget: autoSize()
      .prefault('auto')
      .describe('What all calls together may hold. auto: the memory of the host less the reserve.'),
    keepAvailable: autoSize()
      .prefault('auto')
      .describe(
        'What the host must have available (MemAvailable) before memory is lent. auto: a quarter of the ' +
          'reserve. The rest of the reserve is there to be used by others; below this the host thrashes.',
      ),
    guarantee,
    shortage,
  })
  .transform(({ reserve, budget, keepAvailable, ...rest }) => ({
    reserveBytes: reserve,
    budgetBytes: budget,
    keepAvailableBytes: keepAvailable,
    ...rest,
  }))
  .prefault({})
  .describe('The memory that all calls on the host share: calls borrow from it and give back.');

const classLimits = limits().superRefine((intent, context) => {
  if (intent.class !== undefined) refuse(context, `class=${intent.class}: a class cannot name a class`);
});

const classes = z
  .strictObject({
    interactive: classLimits
      .prefault('cpu.weight=100 io.weight=100')
      .describe("The kernel's default weights: somebody waits for the result, as for any other program."),
    subagent: classLimits
      .prefault('cpu.weight=50 io.weight=50')
      .describe('Half of them: an agent waits, which has others at work meanwhile.'),
    background: classLimits
      .prefault('cpu.weight=idle io.weight=10')
      .describe(
        'Nobody waits. idle: it runs while no other class wants the CPU, and is as fast as any then. Beside four ' +
          'processes that burn two CPUs with weight 10, interactive work on both took a tenth to a fifth longer, with ' +
          'idle next to nothing. Where others never pause, it hardly runs: with a weight it does.',
      ),
  } satisfies Record<CallClass, z.ZodType>)
  .prefault({})
  .describe('Limits by the class of a call.');

const agents = z
  .record(z.string(), z.strictObject({ intent: limits() }))
  .prefault({})
  .describe(
    'Limits by agent, over those of the class. None: what a command needs hardly depends on who runs it.\n' +
      'agents:\n  claude-code:\n    intent: memory.high=2G',
  );

const rules = z
  .array(
    z.strictObject({
      command: z
        .string()
        .refine((pattern) => /[^*\s]/.test(pattern), {
          error: 'matches every command: use defaults for that',
        })
        .refine((pattern) => pattern.length <= PATTERN_MAX, {
          error: `longer than ${PATTERN_MAX} characters`,
        }),
      intent: limits(),
    }),
  )
  .prefault([])
  .describe(
    'Limits by command, over those of the agent; the first rule that matches. A pattern is found ' +
      'anywhere in the command where words begin and end; * is any text. Rules of a later file come ' +
      'first.\n' +
      'rules:\n  - command: npm install\n    intent: memory.high=2G timeout=10m\n' +
      '  - command: cargo build*--release\n    intent: memory.high=6G pids.max=8192',
  );

/** @param uidOf the uid of a user's name, or undefined. */
function ceilings(uidOf: (name: string) => number | undefined) {
  const entry = z
    .strictObject({ uid: whole(0, UID_MAX).optional(), user: z.string().optional(), limits: limits() })
    .transform((given, context) => {
      if ((given.uid === undefined) === (given.user === undefined)) {
        return refuse(context, 'needs either uid or user');
      }
      const uid = given.uid ?? uidOf(given.user ?? '');
      if (uid === undefined) return refuse(context, `${quoteWord(given.user ?? '')}: no such user`);
      return { uid, limits: given.limits };
    });
  return z
    .array(entry)
    .prefault([])
    .describe(
      'The most that the calls of one user may have, over the general ceiling. Entries of a later file ' +
        'come first, and the first one for a user counts.\n' +
        'ceilings:\n  - user: ci\n    limits: memory.max=8G pids.max=2048 class=background',
    );
}

const admission = z
  .strictObject({
    wait: duration()
      .prefault('5s')
      .describe(
        'The longest that a call waits for memory before it starts anyway. Agents count the wait as the ' +
          "command's own time and give up after a minute or two.",
      ),
    pressurePercent: decimal(0, 100)
      .prefault('10')
      .describe(
        'Calls wait only while some task of the host waits for memory this much of the time (PSI some, ' +
          '10 s). At 10 % programs are noticeably slower; below it a full pool is simply well used.',
      ),
    perUid: whole(1, 4096)
      .prefault('1024')
      .describe(
        'Calls of one user at a time; further commands run unmanaged. Those count too whose command has ended and ' +
          'left processes. Twice the 500 at once that one user was tested with, and a quarter of the 4096 that the ' +
          'kernel can be told of, which one user must not use up for all. Not for root: on many hosts all agents are ' +
          'its own.',
      ),
  })
  .transform(({ wait, ...rest }) => ({ waitMs: wait, ...rest }))
  .prefault({})
  .describe('When a new call may start.');

const enforcement = z
  .strictObject({
    mode: z
      .enum(['auto', 'bpf', 'user', 'off'])
      .prefault('auto')
      .describe(
        'Who stops a call at its freeze line: bpf is the kernel itself, user a loop of the daemon, off nobody: ' +
          'every command runs unmanaged. auto: bpf where the kernel takes the program, else user.',
      ),
    freezeLinePercent: decimal(1.25, 17)
      .prefault('2')
      .describe(
        'How far over memory.high a call is frozen. Under 1.25 the kernel does not throttle yet; at 2 it ' +
          'does, by milliseconds, so that memory that is lent is felt at once; at 17.7 a task already ' +
          'sleeps for 2 s.',
      ),
    throttleBudget: duration()
      .prefault('200ms')
      .describe(
        'A call that is throttled for so long within one window is frozen below its line too. A fifth of ' +
          'the time is what a user notices; a burst that ends by itself stays under it.',
      ),
    throttleBudgetEvents: whole(0, 1_000_000)
      .prefault('256')
      .describe(
        'The same counted in reclaims that found nothing, for kernels on which the time cannot be seen: ' +
          'about 17 of them come before each sleep. 0: no limit.',
      ),
    window: duration()
      .prefault('1s')
      .describe('Over which both are counted. Bursts of memory in recorded sessions last 1 to 3 s.'),
    freezeDeadline: duration()
      .prefault('10s')
      .describe(
        'The longest single freeze; then memory is lent over the budget, or the call is killed. Others ' +
          'hold their peak for 1 to 3 s, so that room has come by then if it comes at all.',
      ),
    throttleDeadline: duration()
      .prefault('5s')
      .describe(
        'A call that has been at its memory.high for so long without reaching its freeze line is lent ' +
          'to, if that slows it. Pressure is an average over 10 s and says little sooner.',
      ),
    throttlePressurePercent: decimal(1, 100)
      .prefault('20')
      .describe(
        'What counts as slow: all tasks of the call wait for memory this much of the time. A program ' +
          'that streams files through the page cache stays below it.',
      ),
    stuckDeadline: duration()
      .prefault('60s')
      .describe(
        'A call that computes next to nothing and waits for memory all the time is killed after this, if ' +
          'nothing can be lent. Half of the 120 s after which an agent gives up, so that it learns why.',
      ),
    hugePages: flag()
      .prefault('false')
      .describe(
        'Whether calls may use transparent huge pages. Their charges are not throttled on any kernel: 16 ' +
          'processes pass a memory.high of 128 MiB by 158 MiB.',
      ),
  })
  .transform(({ throttleBudget, window, freezeDeadline, throttleDeadline, stuckDeadline, ...rest }) => ({
    ...rest,
    throttleBudgetMs: throttleBudget,
    windowMs: window,
    freezeDeadlineMs: freezeDeadline,
    throttleDeadlineMs: throttleDeadline,
    stuckDeadlineMs: stuckDeadline,
  }))
  .prefault({})
  .describe('How limits are enforced.');

const lend = z
  .strictObject({
    stepPercent: decimal(1, 1000)
      .prefault('25')
      .describe(
        "A loan is at least this share of the call's memory.high, so that a large call is not frozen often.",
      ),
    stepMin: size()
      .prefault('64M')
      .describe(
        'And at least this: smaller steps would freeze a call that starts from little dozens of times.',
      ),
    roomShare: decimal(1, 1000)
      .prefault('8')
      .describe(
        'And at least one part in so many of what the pool has left: with much room nobody is slowed, ' +
          'and eight calls can burst at once before loans get smaller.',
      ),
    least: size()
      .prefault('4M')
      .describe('The smallest loan worth a thaw: 16 tasks each charge 256 KiB ahead.'),
    quiet: duration()
      .prefault('3s')
      .describe(
        'Memory is given back once a call has been below its lines for so long. Bursts last 1 to 3 s; ' +
          'taking back within one would freeze the call again.',
      ),
  })
  .transform(({ stepPercent, stepMin, roomShare, least, quiet }) => ({
    stepPercent,
    stepMinBytes: stepMin,
    roomShare,
    leastBytes: least,
    quietMs: quiet,
  }))
  .prefault({})
  .describe('How memory is lent to a call over its memory.high.');

const wrapper = z
  .strictObject({
    failClosed: flag()
      .prefault('false')
      .describe(
        'Whether commands are refused (exit 125) that cannot be managed: no daemon runs, or it cannot place them. ' +
          'false: they run unmanaged, because an agent that cannot run anything is worse off than one without limits.',
      ),
    badIntent: z
      .enum(['default', 'refuse'])
      .prefault('default')
      .describe(
        'A command whose intent cannot be read runs with the defaults, and one line says why; or it is ' +
          'refused (exit 125). A typing error in a variable is no reason not to run the tests.',
      ),
  })
  .prefault({})
  .describe('What the wrapper does when something is wrong.');

const connections = z
  .strictObject({
    perUid: whole(1, 100_000)
      .prefault('2048')
      .describe('Each live call holds one. Four times the 500 calls at once that one user was tested with.'),
    total: whole(1, 100_000)
      .prefault('8192')
      .describe('Four users at their limit; each connection and its call take about 10 file descriptors.'),
    handshake: duration()
      .prefault('2s')
      .describe(
        'A connection that has said nothing by then is closed. A wrapper speaks within a millisecond.',
      ),
  })
  .transform(({ perUid, total, handshake }) => ({ perUid, total, handshakeMs: handshake }))
  .prefault({})
  .describe('Limits of the control socket, so that one user cannot shut out the others.');

const metrics = z
  .strictObject({
    listen: listenAddress()
      .prefault('off')
      .describe(
        'A TCP address for /metrics and /healthz, such as 127.0.0.1:9484. They are on the socket anyway.',
      ),
  })
  .prefault({})
  .describe('Metrics and health for those who cannot reach the socket.');

const store = z
  .strictObject({
    path: autoPath()
      .prefault('auto')
      .describe('The database of finished calls. auto: agentrm.db in the state directory.'),
    keepCalls: whole(0, MOST_CALLS)
      .prefault('100000')
      .describe('Older calls are forgotten. About half a kilobyte each: 50 MB, some weeks of a busy host.'),
  })
  .prefault({})
  .describe('What is remembered of finished calls.');

const learning = z
  .strictObject({
    keepShapes: whole(0, 1_000_000)
      .prefault('10000')
      .describe(
        'Commands that are remembered, each in one repository; those that have not run for longest are ' +
          'forgotten. About a kilobyte each: 10 MB. An agent runs some tens of different ones in a ' +
          'repository. 0: nothing is learned.',
      ),
    keepRuns: whole(1, 1000)
      .prefault('64')
      .describe(
        'Of each the newest runs. Enough that three of them are above the 95th percentile, and few ' +
          'enough that a program which has changed is known anew in a day or two.',
      ),
    leastRuns: whole(2, 1000)
      .prefault('10')
      .describe(
        'With fewer runs nothing is advised. The next run needs more than any of ten before it in one of ' +
          'eleven cases, which lending can bear; more than any of three in one of four.',
      ),
    useAsDefaults: flag()
      .prefault('false')
      .describe(
        'Whether memory.high of a command of which neither its intent nor a rule, agent or class says ' +
          'anything is what its earlier runs needed (p95 and a quarter). It never changes memory.max. ' +
          'false: the same command then has the same limits every day, which is easier to understand; ' +
          'look at "agentrm advise" first.',
      ),
  })
  .prefault({})
  .describe(
    'What is remembered of the memory that commands needed, by repository and command, for "agentrm ' +
      'advise". As much of a command is kept as log.commands says: with firstWord the names of its programs ' +
      'and subcommands from a fixed list (npm test, cargo build); with full also its options, without their ' +
      'values; with none nothing is learned.',
  );

const report = z
  .strictObject({
    slow: duration()
      .prefault('250ms')
      .describe(
        'The agent is told that a call was frozen, throttled or kept waiting only from here on. The ' +
          'median command takes 2.5 s (3,984 recorded ones); less than a tenth of it is not worth the ' +
          'tokens.',
      ),
  })
  .transform(({ slow }) => ({ slowMs: slow }))
  .prefault({})
  .describe('The line that an agent reads after a command.');

/**
 * The whole configuration; `{}` yields the defaults.
 * @param uidOf the uid of a user's name, or undefined if there is none.
 */
export function configSchema(uidOf: (name: string) => number | undefined) {
  return z.strictObject({
    socket: socketPath()
      .prefault('auto')
      .describe(
        'The control socket. auto: /run/agentrm/agentrm.sock as root, else agentrm/agentrm.sock in ' +
          'XDG_RUNTIME_DIR.',
      ),
    cgroup: autoPath()
      .prefault('auto')
      .describe(
        'The cgroup below which sessions and calls get theirs. auto: /sys/fs/cgroup/agentrm as root, at the ' +
          'top, where no other limit is in the way; else calls, below the cgroup that the daemon was ' +
          'started in and that was delegated to its user.',
      ),
    stateDir: autoPath()
      .prefault('auto')
      .describe('What outlives a reboot. auto: /var/lib/agentrm as root, else agentrm in XDG_STATE_HOME.'),
    pinDir: path()
      .prefault('/sys/fs/bpf/agentrm')
      .describe('Where the BPF programs are pinned, so that limits hold while the daemon is restarted.'),
    log,
    pool,
    defaults: limits()
      .prefault('memory.swap.max=0 pids.max=4096')
      .describe(
        'Limits of a call of which nobody says anything else, in the words of AGENTRM_INTENT. No swap: ' +
          'reclaim that swaps succeeds for minutes, in which nothing tells that the call is too large. ' +
          '4096 tasks: enough for a parallel build with threaded tools, and an eighth of the 32,768 of a ' +
          'small host, which a fork bomb would take. memory.high, unless given here: half of the ' +
          'pool, 256M to 4G. As nobody asked for it, a call that grows towards it is lent to before it is ' +
          'slowed, while the pool has room.',
      ),
    classes,
    agents,
    rules,
    ceiling: limits()
      .prefault('')
      .describe(
        'The most that any call may have, whoever asks. memory.max, unless given here: the whole pool, ' +
          'which is the most that makes sense; nothing else is limited but by the kernel.',
      ),
    ceilings: ceilings(uidOf),
    admission,
    enforcement,
    lend,
    leftovers: z
      .enum(['keep', 'kill'])
      .prefault('keep')
      .describe(
        'Processes that a command leaves in the background: kept within its limits until the session ' +
          'ends, or killed with the shell. Agents start servers that way, to use them in the next command.',
      ),
    containers: z
      .enum(['ceiling', 'below'])
      .prefault('ceiling')
      .describe(
        'Where a call from a container with a memory limit gets its cgroup. ceiling: below ours, with at ' +
          'most what the container has left. below: below that of the container, so that its limits and ' +
          'its end hold for the call by themselves. Its processes are moved to a leaf there for that, ' +
          'which is not what every runtime expects (docs/containers.md), so it has to be asked for.',
      ),
    wrapper,
    connections,
    metrics,
    proxy,
    store,
    learning,
    report,
  });
}

/** What the daemon works with. Sizes in bytes, times in milliseconds; null is `auto` or `off`. */
export type Config = z.output<ReturnType<typeof configSchema>>;
