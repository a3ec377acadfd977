// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import { type LoadOptions, loadConfig } from '../../daemon/config/load.ts';
import { sampleConfig } from '../../daemon/config/sample.ts';
import { type Config, configSchema } from '../../daemon/config/schema.ts';
import { formatProblem } from '../../daemon/config/source.ts';

const MIB = 2 ** 20;
const root = mkdtempSync(join(tmpdir(), 'agentrm-config-'));
after(() => rmSync(root, { recursive: true }));

/** A tree of its own with these files. */
function tree(files: Readonly<Record<string, string>>): string {
  const at = mkdtempSync(join(root, 'tree-'));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(at, path)), { recursive: true });
    writeFileSync(join(at, path), text);
  }
  return at;
}

function load(options: LoadOptions): Config {
  const loaded = loadConfig({ env: {}, root, ...options });
  assert.ok(loaded.ok, loaded.ok ? '' : loaded.problems.map(formatProblem).join('\n'));
  return loaded.config;
}

/** The problems of one file, as they are printed, less its directory. */
function problems(text: string, options: LoadOptions = {}): string[] {
  const at = tree({ 'a.yaml': text, 'etc/passwd': 'root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n' });
  const loaded = loadConfig({ env: {}, root: at, file: join(at, 'a.yaml'), ...options });
  assert.ok(!loaded.ok);
  return loaded.problems.map((problem) => formatProblem(problem).replace(`${at}/`, ''));
}

const DEFAULTS = configSchema(() => undefined).parse({});
const USER = 'usr/lib/agentrm/agentrmd.yaml';
const ETC = 'etc/agentrm/agentrmd.yaml';

describe('layers', () => {
  test('are the defaults when there is none', () => assert.deepEqual(load({}), DEFAULTS));

  test('go over one another: packaged, local, drop-ins by name, environment, command line', () => {
    const files = {
      [USER]: 'leftovers: kill\nadmission: {wait: 1s, pressurePercent: 50}\nlend: {quiet: 9s}\n',
      [ETC]: 'admission: {wait: 2s}\nlend: {least: 1M}\n',
      'etc/agentrm/conf.d/20.yaml': 'admission: {wait: 4s}\nlog: {level: debug}\n',
      'etc/agentrm/conf.d/10.yaml': 'admission: {wait: 3s}\nsocket: /ten\ncgroup: /ten\n',
      'etc/agentrm/conf.d/.30.yaml': 'admission: {wait: 5s}\n',
      'etc/agentrm/conf.d/30.yaml~': 'admission: {wait: 6s}\n',
    };
    const at = tree(files);
    const config = load({
      root: at,
      env: { AGENTRM_SOCKET: '/env', AGENTRM_CGROUP: '/env' },
      flags: { socket: '/flag' },
    });
    assert.equal(config.leftovers, 'kill');
    assert.deepEqual(config.admission, { ...DEFAULTS.admission, waitMs: 4_000, pressurePercent: 50 });
    assert.deepEqual(config.lend, { ...DEFAULTS.lend, quietMs: 9_000, leastBytes: MIB });
    assert.equal(config.log.level, 'debug');
    assert.equal(config.socket, '/flag');
    assert.equal(config.cgroup, '/env');
    const loaded = loadConfig({ root: at, env: {} });
    assert.ok(loaded.ok);
    assert.deepEqual(
      loaded.files.map((file) => file.replace(`${at}/`, '')),
      [USER, ETC, 'etc/agentrm/conf.d/10.yaml', 'etc/agentrm/conf.d/20.yaml'],
    );
  });

  test('end for an ordinary user with a file of its own', () => {
    const at = tree({
      [ETC]: 'leftovers: kill\nlend: {quiet: 9s}\n',
      '.config/agentrm/agentrmd.yaml': 'leftovers: keep\n',
      'xdg/agentrm/agentrmd.yaml': 'leftovers: keep\nlend: {quiet: 8s}\n',
    });
    const config = (env: Record<string, string>, uid = 1000) =>
      load({ root: at, env: { HOME: at, ...env }, uid });
    assert.deepEqual([config({}).leftovers, config({}).lend.quietMs], ['keep', 9_000]);
    assert.equal(config({ XDG_CONFIG_HOME: join(at, 'xdg') }).lend.quietMs, 8_000);
    assert.equal(config({}, 0).leftovers, 'kill');
    assert.equal(load({ root: at, env: {}, uid: 1000 }).leftovers, 'kill');
  });

  test('are one file alone if it is named, by option or variable', () => {
    const at = tree({ [ETC]: 'leftovers: kill\n', 'a.yaml': 'socket: /a\n', 'b.yaml': 'socket: /b\n' });
    const option = load({ root: at, file: join(at, 'a.yaml'), env: { AGENTRM_CONFIG: join(at, 'b.yaml') } });
    assert.deepEqual([option.socket, option.leftovers], ['/a', 'keep']);
    assert.equal(load({ root: at, env: { AGENTRM_CONFIG: join(at, 'b.yaml') } }).socket, '/b');
    assert.equal(load({ root: at, env: { AGENTRM_CONFIG: '' } }).leftovers, 'kill');
  });

  test('put the rules and ceilings of a later file before those of an earlier one', () => {
    const rule = (command: string) => `rules: [{command: ${command}, intent: pids.max=5}]\n`;
    const ceiling = (pids: number) => `ceilings: [{uid: 5, limits: pids.max=${pids}}]\n`;
    const config = load({
      root: tree({ [USER]: rule('a') + ceiling(1), 'etc/agentrm/conf.d/x.yaml': rule('b') + ceiling(2) }),
    });
    assert.deepEqual(config.rules, [
      { command: 'b', intent: { pidsMax: 5 } },
      { command: 'a', intent: { pidsMax: 5 } },
    ]);
    assert.deepEqual(config.ceilings, [
      { uid: 5, limits: { pidsMax: 2 } },
      { uid: 5, limits: { pidsMax: 1 } },
    ]);
  });

  test('may be empty, in whole or in part', () => {
    for (const text of [
      '',
      '# nothing\n',
      '---\n',
      'admission:\n',
      'admission:\n  wait:\nlog:\nrules:\n',
      '\ufeff',
    ]) {
      assert.deepEqual(load({ root: tree({ [ETC]: text }) }), DEFAULTS, JSON.stringify(text));
    }
  });
});

describe('values', () => {
  test('are read with the grammar of intents', () => {
    const config = load({
      root: tree({
        [ETC]: [
          'pool: {reserve: 1.5GiB, budget: 1073741824, keepAvailable: auto}',
          'admission: {wait: 0.5}',
          'agents: {codex: {intent: memory.high=1G class=background}}',
          'classes: {subagent: cpu.weight=7}',
          'metrics: {listen: "[::1]:9484"}',
          'enforcement: {hugePages: true, freezeLinePercent: 2.5}',
          'stateDir: /var/lib/x',
        ].join('\n'),
      }),
    });
    assert.deepEqual(config.pool, {
      reserveBytes: 1536 * MIB,
      budgetBytes: 1024 * MIB,
      keepAvailableBytes: null,
      guarantee: DEFAULTS.pool.guarantee,
      shortage: DEFAULTS.pool.shortage,
    });
    assert.equal(config.admission.waitMs, 500);
    assert.deepEqual(config.agents, {
      codex: { intent: { memoryHighBytes: 1024 * MIB, class: 'background' } },
    });
    assert.deepEqual(config.classes.subagent, { cpuWeight: 7 });
    assert.deepEqual(config.metrics.listen, { host: '::1', port: 9484 });
    assert.equal(config.enforcement.hugePages, true);
    assert.equal(config.enforcement.freezeLinePercent, 2.5);
  });

  test('name users of /etc/passwd', () => {
    const at = tree({
      'etc/passwd': 'root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n',
      [ETC]: 'ceilings: [{user: alice, limits: pids.max=5}]',
    });
    assert.deepEqual(load({ root: at }).ceilings, [{ uid: 1000, limits: { pidsMax: 5 } }]);
  });

  test('keep names that mean something to JavaScript from meaning it here', () => {
    const text = 'agents: {constructor: {intent: pids.max=5}, hasOwnProperty: {intent: pids.max=6}}';
    const { agents } = load({ root: tree({ [ETC]: text }) });
    assert.deepEqual(Object.entries(agents), [
      ['constructor', { intent: { pidsMax: 5 } }],
      ['hasOwnProperty', { intent: { pidsMax: 6 } }],
    ]);
  });
});

describe('problems', () => {
  const cases: readonly (readonly [text: string, problems: readonly string[]])[] = [
    ['wiat: 5s', ['a.yaml:1:1: wiat: unknown key']],
    ['admission:\n  wait: 1s\n  wiat: 5s', ['a.yaml:3:3: admission.wiat: unknown key']],
    ['__proto__: {a: b}', ['a.yaml:1:1: __proto__: unknown key']],
    ['log: {constructor: {a: b}}', ['a.yaml:1:7: log.constructor: unknown key']],
    ['<<: {leftovers: kill}', ['a.yaml:1:1: "<<": unknown key']],
    ['admission: 5s', ['a.yaml:1:12: admission: not a map']],
    ['leftovers: [keep]', ['a.yaml:1:1: leftovers: not a single value']],
    ['rules: {a: b}', ['a.yaml:1:1: rules: not a list']],
    ['leftovers: drop', ['a.yaml:1:12: leftovers: "drop": not one of keep, kill']],
    [
      'admission: {wait: 5x}',
      ['a.yaml:1:19: admission.wait: "5x": not a time such as 500ms, 30s, 10m or 2h'],
    ],
    ['pool: {reserve: 0x10}', ['a.yaml:1:17: pool.reserve: "0x10": not a size such as 512M, 1.5G or max']],
    ['pool: {reserve: -1G}', ['a.yaml:1:17: pool.reserve: "-1G": negative']],
    ['lend: {least: 1e6}', ['a.yaml:1:15: lend.least: "1e6": not a size such as 512M, 1.5G or max']],
    ['enforcement: {hugePages: yes}', ['a.yaml:1:26: enforcement.hugePages: "yes": not one of true, false']],
    // The kernel's part has room for no more.
    [
      'admission: {perUid: 4097}',
      ['a.yaml:1:21: admission.perUid: "4097": not a whole number from 1 to 4096'],
    ],
    [
      'enforcement: {freezeLinePercent: 1}',
      ['a.yaml:1:34: enforcement.freezeLinePercent: "1": not a number from 1.25 to 17'],
    ],
    [
      'pool: {shortage: {stepPercent: 5.1}}',
      ['a.yaml:1:32: pool.shortage.stepPercent: "5.1": not a number from 0.1 to 5'],
    ],
    ['socket: run/x', ['a.yaml:1:9: socket: "run/x": not an absolute path or auto']],
    [`socket: /${'x'.repeat(107)}`, ['a.yaml:1:9: socket: longer than 107 bytes']],
    ['pinDir: auto', ['a.yaml:1:9: pinDir: "auto": not an absolute path']],
    ['metrics: {listen: 9484}', ['a.yaml:1:19: metrics.listen: "9484": not ADDRESS:PORT or off']],
    ['metrics: {listen: "x:65536"}', ['a.yaml:1:19: metrics.listen: "x:65536": not ADDRESS:PORT or off']],
    [
      'proxy: {upstreams: {openai: {url: api.example, via: "socks5://h:1", ca: ca.pem}}}',
      [
        'a.yaml:1:35: proxy.upstreams.openai.url: "api.example": not an http or https URL without user and query',
        'a.yaml:1:53: proxy.upstreams.openai.via: "socks5://h:1": not environment, direct or the URL of an HTTP proxy',
        'a.yaml:1:73: proxy.upstreams.openai.ca: "ca.pem": not an absolute path or off',
      ],
    ],
    // What may be a secret is not repeated.
    [
      'proxy: {upstreams: {openai: {url: "http://:secret@h", via: "socks5://u:secret@h"}}}',
      [
        'a.yaml:1:35: proxy.upstreams.openai.url: not an http or https URL without user and query',
        'a.yaml:1:60: proxy.upstreams.openai.via: not environment, direct or the URL of an HTTP proxy',
      ],
    ],
    ['defaults: memory.hihg=1G', ['a.yaml:1:11: defaults: "memory.hihg=1G": unknown key']],
    ['ceiling: memory.high=2G memory.max=1G', ['a.yaml:1:10: ceiling: "memory.high=2G": over memory.max']],
    [
      'classes: {background: class=interactive}',
      ['a.yaml:1:23: classes.background: class=interactive: a class cannot name a class'],
    ],
    ['agents: {a: pids.max=5}', ['a.yaml:1:13: agents.a: not a map']],
    ['rules: [{intent: pids.max=5}]', ['a.yaml:1:9: rules.0.command: missing']],
    [
      'rules:\n  - command: "*"\n    intent: ""',
      ['a.yaml:2:14: rules.0.command: matches every command: use defaults for that'],
    ],
    ['ceilings: [{limits: ""}]', ['a.yaml:1:12: ceilings.0: needs either uid or user']],
    ['ceilings: [{uid: 1, user: alice, limits: ""}]', ['a.yaml:1:12: ceilings.0: needs either uid or user']],
    ['ceilings: [{user: bob, limits: ""}]', ['a.yaml:1:12: ceilings.0: "bob": no such user']],
    [
      'connections: {perUid: 0}',
      ['a.yaml:1:23: connections.perUid: "0": not a whole number from 1 to 100000'],
    ],
    [
      'log:\n  level: loud\nleftovers: drop\nadmission:\n  x: 1\n',
      [
        'a.yaml:2:10: log.level: "loud": not one of trace, debug, info, warn, error, fatal',
        'a.yaml:3:12: leftovers: "drop": not one of keep, kill',
        'a.yaml:5:3: admission.x: unknown key',
      ],
    ],
    ['"\\e[2J": 1', ['a.yaml:1:1: "\\x1b[2J": unknown key']],
    ['a: 1\na: 2', ['a.yaml:2:1: Map keys must be unique']],
    ['[1]', ['a.yaml:1:1: not a map of settings']],
    ['leftovers', ['a.yaml:1:1: not a map of settings']],
    ['? [a]\n: b', ['a.yaml:1:3: a key must be a word']],
    ['log: &l {level: info}\nadmission: *l', ['a.yaml:2:12: aliases are not supported']],
    ['log: !!js/function x', ['a.yaml:1:6: Unresolved tag: tag:yaml.org,2002:js/function']],
    ['log:\n\tlevel: info', ['a.yaml:2:1: Tabs are not allowed as indentation']],
  ];
  for (const [text, expected] of cases) {
    test(JSON.stringify(text).slice(0, 80), () => assert.deepEqual(problems(text), expected));
  }

  test('of the environment and the command line name the variable or option', () => {
    assert.deepEqual(problems('', { env: { AGENTRM_SOCKET: 'x' }, flags: { logLevel: 'loud' } }), [
      'AGENTRM_SOCKET: socket: "x": not an absolute path or auto',
      '--log-level: log.level: "loud": not one of trace, debug, info, warn, error, fatal',
    ]);
  });

  test('of all files are told at once', () => {
    const at = tree({ [USER]: 'x: 1', [ETC]: 'a: [', 'etc/agentrm/conf.d/a.yaml': 'y: 1' });
    const loaded = loadConfig({ root: at, env: {} });
    assert.ok(!loaded.ok);
    assert.deepEqual(
      new Set(loaded.problems.map(({ source }) => source.replace(`${at}/`, ''))),
      new Set([USER, ETC, 'etc/agentrm/conf.d/a.yaml']),
    );
  });

  test('with files that cannot be read name errno or the reason', (t) => {
    const at = tree({ 'secret.yaml': '', 'binary.yaml': '', 'large.yaml': 'x'.repeat(MIB) });
    writeFileSync(join(at, 'binary.yaml'), Buffer.from([0xff, 0xfe, 0x00]));
    chmodSync(join(at, 'secret.yaml'), 0);
    execFileSync('mkfifo', [join(at, 'fifo.yaml')]);
    const message = (file: string): string => {
      const loaded = loadConfig({ root: at, env: {}, file });
      assert.ok(!loaded.ok);
      return loaded.problems.map(formatProblem).join('\n');
    };
    assert.equal(message(join(at, 'none.yaml')), `${at}/none.yaml: no such file`);
    assert.match(message(at), /not a regular file/);
    assert.match(message(join(at, 'fifo.yaml')), /not a regular file/);
    assert.match(message('/dev/zero'), /not a regular file/);
    assert.match(message(join(at, 'large.yaml')), /larger than 262144 bytes/);
    assert.match(message(join(at, 'binary.yaml')), /not valid/);
    if (process.getuid?.() === 0) t.diagnostic('EACCES not seen: root may read every file');
    else assert.match(message(join(at, 'secret.yaml')), /EACCES/);
  });

  test('with deep or endless nesting are a few lines', () => {
    for (const text of [
      '['.repeat(10_000),
      '{a: '.repeat(10_000),
      '- '.repeat(10_000),
      '? '.repeat(10_000),
    ]) {
      const found = problems(text);
      assert.ok(found.length <= 20);
      for (const line of found) assert.ok(line.length <= 300);
    }
  });

  test('are all that any text leads to: never an exception', () => {
    const word = fc.constantFrom(
      'admission',
      'wait',
      'rules',
      'log',
      '5s',
      ': ',
      '\n',
      '  ',
      '- ',
      '&a',
      '*a',
      '[',
      '{',
      '"',
      '#',
    );
    const yaml = fc
      .array(fc.oneof(word, fc.string({ unit: 'binary', maxLength: 3 })))
      .map((words) => words.join(''));
    const at = tree({});
    const file = join(at, 'a.yaml');
    fc.assert(
      fc.property(yaml, (text) => {
        writeFileSync(file, text);
        const loaded = loadConfig({ root: at, env: {}, file });
        if (loaded.ok) return;
        for (const problem of loaded.problems) assert.match(formatProblem(problem), /^[\x20-\x7e…]+$/);
      }),
      { numRuns: 500 },
    );
  });
});

describe('the shipped configuration', () => {
  const shipped = readFileSync(new URL('../../deploy/agentrmd.yaml', import.meta.url), 'utf8');
  const uncommented = shipped.replaceAll(/^#(?=(?: {2})*\w)/gm, '');

  test('is what the schema says: else run node daemon/config/sample.ts > deploy/agentrmd.yaml', () => {
    assert.equal(shipped, sampleConfig());
  });

  test('changes nothing as it is', () =>
    assert.deepEqual(load({ root: tree({ [ETC]: shipped }) }), DEFAULTS));

  test('shows exactly the defaults when its marks are taken off', () => {
    assert.deepEqual(load({ root: tree({ [ETC]: uncommented }) }), DEFAULTS);
    const names = (value: unknown): string[] =>
      typeof value === 'object' && value !== null && !Array.isArray(value)
        ? Object.values(value).flatMap(names)
        : [''];
    // As many settings as the defaults have leaves, less those within one line of limits.
    const lines = uncommented.split('\n').filter((line) => /^ *\w+: \S/.test(line));
    assert.ok(lines.length >= 40 && lines.length <= names(DEFAULTS).length);
  });

  test('has a reason above every setting', () => {
    const lines = shipped.split('\n');
    const settings = lines.flatMap((line, index) => (/^#(?: {2})*\w/.test(line) ? [index] : []));
    assert.ok(settings.length > 40);
    for (const index of settings) assert.match(lines[index - 1] ?? '', /^# +\S/, lines[index]);
  });
});
