// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { failure, native } from './addon.ts';

describe('file calls below a directory descriptor', () => {
  let path: string;
  let dir: number;

  beforeEach(() => {
    path = mkdtempSync(join(tmpdir(), 'agentrm-native-'));
    dir = native.openDir(path);
  });
  afterEach(() => {
    closeSync(dir);
    rmSync(path, { recursive: true });
  });

  it('makes, names by inode, reopens and removes directories', () => {
    const made = native.mkdirAt(dir, 'c1');
    assert.equal(made.id, statSync(join(path, 'c1')).ino);
    assert.equal(native.inode(made.fd), made.id);
    const again = native.openDirAt(dir, 'c1');
    assert.equal(native.inode(again), made.id);
    assert.throws(() => native.mkdirAt(dir, 'c1'), failure('EEXIST', 'mkdirat', join(path, 'c1')));
    native.rmdirAt(dir, 'c1');
    assert.throws(() => native.openDirAt(dir, 'c1'), failure('ENOENT', 'openat', join(path, 'c1')));
    closeSync(made.fd);
    closeSync(again);
  });

  it('takes a directory for itself, whoever else has it open, until it is closed', () => {
    const other = native.openDir(path);
    assert.equal(native.tryLock(dir), true);
    assert.equal(native.tryLock(dir), true, 'it has it already');
    assert.equal(native.tryLock(other), false);
    closeSync(dir);
    dir = native.openDir(path);
    assert.equal(native.tryLock(other), true);
    assert.equal(native.tryLock(dir), false);
    closeSync(other);
    assert.throws(() => native.tryLock(other), failure('EBADF', 'flock'));
  });

  it('keeps to the directory that was opened when its name is given to another', () => {
    const old = native.mkdirAt(dir, 'c1');
    native.rmdirAt(dir, 'c1');
    mkdirSync(join(path, 'c1'));
    writeFileSync(join(path, 'c1', 'memory.high'), 'max');
    assert.throws(() => native.writeAt(old.fd, 'memory.high', '1'), { code: 'ENOENT' });
    assert.equal(readFileSync(join(path, 'c1', 'memory.high'), 'utf8'), 'max');
    closeSync(old.fd);
  });

  it('writes without creating or truncating', async () => {
    assert.throws(
      () => native.writeAt(dir, 'memory.high', '1'),
      failure('ENOENT', 'openat', join(path, 'memory.high')),
    );
    await assert.rejects(native.writeAtAsync(dir, 'memory.high', '1'), failure('ENOENT', 'openat'));
    writeFileSync(join(path, 'memory.high'), 'abcdef');
    native.writeAt(dir, 'memory.high', '123');
    assert.equal(native.readAt(dir, 'memory.high'), '123def');
    await native.writeAtAsync(dir, 'memory.high', '45');
    assert.equal(native.readAt(dir, 'memory.high'), '453def');
  });

  it('finishes an asynchronous write whose directory is closed meanwhile', async () => {
    const { fd } = native.mkdirAt(dir, 'c1');
    writeFileSync(join(path, 'c1', 'memory.max'), '');
    const written = native.writeAtAsync(fd, 'memory.max', '4096');
    closeSync(fd);
    await written;
    assert.equal(readFileSync(join(path, 'c1', 'memory.max'), 'utf8'), '4096');
  });

  it('says what could not be written', () => {
    // A file that refuses every value, as kernel files do.
    const device = native.openDir('/dev');
    assert.throws(() => native.writeAt(device, 'full', '12'), {
      code: 'ENOSPC',
      errno: -constants.errno.ENOSPC,
      syscall: 'write',
      path: '/dev/full',
      value: '12',
      message: "ENOSPC: no space left on device, write '/dev/full' <- '12'",
    });
    closeSync(device);
  });

  it('rejects an asynchronous write the same way', async () => {
    const device = native.openDir('/dev');
    await assert.rejects(native.writeAtAsync(device, 'full', '12'), {
      code: 'ENOSPC',
      path: '/dev/full',
      value: '12',
    });
    closeSync(device);
  });

  it('reads whole files up to a limit', () => {
    const text = 'é'.repeat(10_000);
    writeFileSync(join(path, 'memory.stat'), text);
    assert.equal(native.readAt(dir, 'memory.stat'), text);
    writeFileSync(join(path, 'memory.stat'), 'x'.repeat(2 ** 20 + 1));
    assert.throws(() => native.readAt(dir, 'memory.stat'), failure('EFBIG', 'read'));
  });

  it('does not follow symbolic links or leave the directory', () => {
    symlinkSync('/etc', join(path, 'link'));
    symlinkSync('/etc/passwd', join(path, 'file'));
    assert.throws(() => native.openDirAt(dir, 'link'), { syscall: 'openat' });
    assert.throws(() => native.openAt(dir, 'file', true), failure('ELOOP', 'openat'));
    for (const name of ['', '.', '..', 'a/b', '/etc', 'a\0b'])
      assert.throws(() => native.openDirAt(dir, name), { name: 'TypeError', code: 'ERR_INVALID_ARG_VALUE' });
  });

  it('reads numbers from descriptors that stay open', () => {
    const values = ['4096\n', 'max\n', '', 'nonsense', '18014398509481984\n'];
    const fds = values.map((value, index) => {
      writeFileSync(join(path, `f${index}`), value);
      return native.openAt(dir, `f${index}`, false);
    });
    const out = new Float64Array(fds.length + 1);
    const closed = openSync('/dev/null', 'r');
    closeSync(closed);
    native.readNumbers(Int32Array.from([...fds, closed]), out);
    assert.deepEqual([...out], [4096, Number.POSITIVE_INFINITY, -1, -1, 2 ** 54, -1]);
    writeFileSync(join(path, 'f0'), '8192\n');
    native.readNumbers(Int32Array.from(fds), out.subarray(0, fds.length));
    assert.equal(out[0], 8192);
    fds.forEach(closeSync);
  });

  it('refuses arrays of the wrong kind or length', () => {
    assert.throws(() => native.readNumbers(new Int32Array(2), new Float64Array(1)), {
      code: 'ERR_INVALID_ARG_VALUE',
    });
    assert.throws(() => native.readNumbers([1] as unknown as Int32Array, new Float64Array(1)), {
      code: 'ERR_INVALID_ARG_TYPE',
    });
  });

  it('keeps extended attributes', (context) => {
    // trusted.* needs a file system and a privilege that a container may lack; user.* goes through the same code.
    const attribute = ['trusted.agentrm', 'user.agentrm'].find((name) => {
      try {
        native.setXattr(dir, name, 'probe');
        return true;
      } catch {
        return false;
      }
    });
    if (attribute === undefined) return context.skip('this file system keeps no extended attributes');
    assert.equal(native.getXattr(dir, `${attribute}.absent`), null);
    native.setXattr(dir, attribute, '{"v":1}');
    assert.equal(native.getXattr(dir, attribute), '{"v":1}');
    assert.throws(() => native.setXattr(dir, 'nonsense', ''), failure('ENOTSUP', 'fsetxattr', path));
  });

  it('opens descriptors that are not inherited', () => {
    const seen = spawnSync('readlink', [`/proc/self/fd/${dir}`], { encoding: 'utf8' });
    assert.notEqual(seen.stdout.trim(), path);
  });

  it('tells cgroup v2 from other file systems', () => {
    assert.equal(native.isCgroup2(path), false);
    assert.throws(
      () => native.isCgroup2(join(path, 'absent')),
      failure('ENOENT', 'statfs', join(path, 'absent')),
    );
  });

  it('leaks no descriptor when it fails', () => {
    const before = openSync('/dev/null', 'r');
    closeSync(before);
    for (let i = 0; i < 50; i++) {
      assert.throws(() => native.openDirAt(dir, 'absent'));
      assert.throws(() => native.readAt(dir, 'absent'));
      assert.throws(() => native.writeAt(dir, 'absent', ''));
    }
    const after = openSync('/dev/null', 'r');
    assert.equal(after, before);
    assert.ok(fstatSync(after).isCharacterDevice());
    closeSync(after);
  });

  it('refuses arguments of the wrong type', () => {
    const loose = native as unknown as Record<string, (...args: unknown[]) => unknown>;
    assert.throws(() => loose.openDir?.(1), { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' });
    assert.throws(() => loose.inode?.('1'), { code: 'ERR_INVALID_ARG_TYPE' });
    for (const fd of [-1, 1.5, Number.NaN, 2 ** 31])
      assert.throws(() => native.inode(fd), { code: 'ERR_INVALID_ARG_VALUE' });
    assert.throws(() => loose.openAt?.(dir, 'x'), { code: 'ERR_INVALID_ARG_TYPE' });
  });
});
