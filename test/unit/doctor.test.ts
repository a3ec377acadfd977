// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { hostChecks } from '../../daemon/kernel/doctor.ts';

/** A host on which there is nothing to say, as files below a temporary directory. */
function goodHost(root: string): Record<string, string> {
  return {
    'proc/sys/kernel/osrelease': '6.12.48+deb13-amd64\n',
    'proc/self/mountinfo':
      `30 23 0:26 / ${root}/sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,favordynmods\n` +
      `31 23 0:27 / ${root}/sys/fs/bpf rw,nosuid shared:10 - bpf bpf rw,mode=700\n`,
    'proc/pressure/memory': 'some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n',
    'proc/swaps': 'Filename\tType\tSize\tUsed\tPriority\n',
    'sys/kernel/btf/vmlinux': 'BTF',
    'sys/kernel/mm/transparent_hugepage/enabled': 'always [madvise] never\n',
    'sys/fs/cgroup/cgroup.controllers': 'cpuset cpu io memory hugetlb pids rdma misc\n',
    'dist/agentrm-bash': '',
    'dist/agentrm-guard': '',
  };
}

async function check(
  t: TestContext,
  name: string,
  changes: Record<string, string | ((root: string) => string) | null> = {},
) {
  const root = mkdtempSync(join(tmpdir(), 'agentrm-doctor-'));
  t.after(() => rmSync(root, { recursive: true }));
  for (const [path, content] of Object.entries({ ...goodHost(root), ...changes })) {
    if (content === null) continue;
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), typeof content === 'string' ? content : content(root));
  }
  const checks = await hostChecks({
    procRoot: join(root, 'proc'),
    sysRoot: join(root, 'sys'),
    cgroupRoot: join(root, 'sys/fs/cgroup/agentrm'),
    helpers: `${root}/dist/`,
  });
  const found = checks.filter((entry) => entry.name === name);
  assert.equal(found.length, 1, `checks named ${name}`);
  return { status: found[0]?.status, detail: found[0]?.detail.replaceAll(root, ''), fix: found[0]?.fix };
}

test('a good host: every check is ok, but for the capability that a test cannot have', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'agentrm-doctor-'));
  t.after(() => rmSync(root, { recursive: true }));
  for (const [path, content] of Object.entries(goodHost(root))) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  }
  const checks = await hostChecks({
    procRoot: join(root, 'proc'),
    sysRoot: join(root, 'sys'),
    cgroupRoot: join(root, 'sys/fs/cgroup/a/b'),
    helpers: `${root}/dist/`,
  });
  assert.deepEqual(
    checks.map(({ name, status }) => `${name} ${status}`),
    [
      'kernel ok',
      'cgroup ok',
      'btf ok',
      'bpffs ok',
      'psi ok',
      'huge-pages ok',
      'swap ok',
      'systemd-oomd ok',
      'favordynmods ok',
      'agentrm-bash note',
      'agentrm-guard ok',
    ],
  );
});

const unified = 'sys/fs/cgroup/cgroup.controllers';
const mountinfo = 'proc/self/mountinfo';
const cases: [
  what: string,
  name: string,
  changes: Parameters<typeof check>[2],
  status: string,
  detail: RegExp,
][] = [
  ['an old kernel', 'kernel', { 'proc/sys/kernel/osrelease': '5.15.0-91\n' }, 'warn', /5\.15\.0-91 is older/],
  ['the oldest kernel', 'kernel', { 'proc/sys/kernel/osrelease': '6.1.0\n' }, 'ok', /6\.1\.0/],
  ['a kernel of the next ten', 'kernel', { 'proc/sys/kernel/osrelease': '10.0.0\n' }, 'ok', /10\.0\.0/],
  ['no kernel version', 'kernel', { 'proc/sys/kernel/osrelease': null }, 'warn', /cannot be read/],
  ['no mounts at all', 'cgroup', { [mountinfo]: null }, 'fail', /agentrm is not on cgroup v2$/],
  [
    'cgroup v1 with v2 beside it',
    'cgroup',
    {
      [mountinfo]: (root) =>
        `31 23 0:28 / ${root}/sys/fs/cgroup rw - tmpfs tmpfs rw\n` +
        `41 31 0:38 / ${root}/sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n`,
    },
    'fail',
    /is not on cgroup v2, which is mounted on \/sys\/fs\/cgroup\/unified$/,
  ],
  ['no memory controller', 'cgroup', { [unified]: 'cpu io pids\n' }, 'fail', /memory \(memory limits\)/],
  ['no io controller', 'cgroup', { [unified]: 'cpu memory pids\n' }, 'warn', /offer io \(I\/O weights\)$/],
  ['no controllers file', 'cgroup', { [unified]: null }, 'fail', /memory .*pids .*cpu .*io /],
  ['no BTF', 'btf', { 'sys/kernel/btf/vmlinux': null }, 'warn', /vmlinux is missing/],
  ['no bpffs', 'bpffs', { [mountinfo]: '\n' }, 'warn', /no BPF file system/],
  ['no PSI', 'psi', { 'proc/pressure/memory': null }, 'warn', /not measured/],
  [
    'huge pages always',
    'huge-pages',
    { 'sys/kernel/mm/transparent_hugepage/enabled': '[always] madvise never\n' },
    'note',
    /^always: /,
  ],
  ['no huge pages', 'huge-pages', { 'sys/kernel/mm/transparent_hugepage/enabled': null }, 'ok', /^never$/],
  ['swap', 'swap', { 'proc/swaps': 'Filename Type\n/dev/zram0 partition 1 0 100\n' }, 'note', /^present/],
  ['no /proc/swaps', 'swap', { 'proc/swaps': null }, 'ok', /^none$/],
  [
    'systemd-oomd',
    'systemd-oomd',
    { 'sys/fs/cgroup/system.slice/systemd-oomd.service/cgroup.procs': '712\n' },
    'note',
    /^runs: /,
  ],
  [
    'no favordynmods',
    'favordynmods',
    { [mountinfo]: (root) => `30 23 0:26 / ${root}/sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n` },
    'note',
    /^off: /,
  ],
  ['no helper', 'agentrm-bash', { 'dist/agentrm-bash': null }, 'fail', /agentrm-bash is missing/],
  ['no guard', 'agentrm-guard', { 'dist/agentrm-guard': null }, 'warn', /agentrm-guard is missing/],
];

for (const [what, name, changes, status, detail] of cases) {
  test(`${what}: ${status}`, async (t) => {
    const found = await check(t, name, changes);
    assert.equal(found.status, status);
    assert.match(found.detail ?? '', detail);
    if (found.fix !== undefined) assert.match(found.fix, /^[A-Z].*\.$/);
  });
}

test('the capability of agentrm-bash is seen', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'agentrm-doctor-'));
  t.after(() => rmSync(root, { recursive: true }));
  const helper = join(root, 'agentrm-bash');
  writeFileSync(helper, '');
  chmodSync(helper, 0o755);
  try {
    execFileSync('/usr/sbin/setcap', ['cap_dac_override=p', helper], { stdio: 'ignore' });
  } catch {
    t.skip('setcap needs root and a file system with capabilities');
    return;
  }
  const found = (await hostChecks({ helpers: `${root}/` })).find(({ name }) => name === 'agentrm-bash');
  assert.equal(found?.status, 'ok');
});

test('the real host is looked at without an error', async () => {
  for (const { name, status, detail } of await hostChecks()) {
    assert.match(name, /^[a-z-]+$/);
    assert.match(status, /^(ok|note|warn|fail)$/);
    assert.ok(detail.length > 0);
  }
});
