// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Peer } from './peer.ts';
import { finish, printed, run, scratch, start, unbuilt, wrapper } from './shell.ts';

const bash = '/bin/bash';

/**
 * Runs argv[2:] in a process group of its own, as a shell with job control does, and stops it as argv[1]
 * says. Prints what waitpid reports of it, with the state of the command, whose pid is its first line.
 */
const jobControl = `
import os, signal, subprocess, sys
how = sys.argv[1]
job = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                       preexec_fn=lambda: os.setpgid(0, 0))
command = int(job.stdout.readline())
state = lambda: open(f'/proc/{command}/stat').read().rsplit(')', 1)[1].split()[0]
def resume(target):
    os.kill(target, signal.SIGCONT)
    job.stdin.write('go on\\n')
    job.stdin.close()
if how == 'command':
    os.kill(command, signal.SIGSTOP)
    while state() != 'T':
        pass
    resume(command)
else:
    os.kill(job.pid if how == 'wrapper' else -job.pid, signal.SIGTSTP)
    _, status = os.waitpid(job.pid, os.WUNTRACED)
    print('stopped by', os.WSTOPSIG(status), 'command', state())
    resume(job.pid if how == 'wrapper' else -job.pid)
_, status = os.waitpid(job.pid, os.WUNTRACED)
print('exited' if os.WIFEXITED(status) else 'not exited', os.WEXITSTATUS(status))
print(job.stdout.read(), end='')
`;

describe('agentrm-bash and signals', { skip: unbuilt }, () => {
  const folder = scratch();
  let peer: Peer;
  let env: Record<string, string>;

  before(async () => {
    peer = await Peer.listen(join(folder.path, 'sock'));
    env = { AGENTRM_SOCKET: peer.path };
  });
  after(async () => {
    await peer[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGALRM'] as const) {
    it(`passes ${signal} on to a command that handles it`, async () => {
      const script = `n=0; trap 'n=$((n + 1))' ${signal}; echo ready; while ((n == 0)); do read -rt 0.05; done; exit $((n + 8))`;
      const child = start(wrapper, [script], { env });
      const result = finish(child);
      await printed(child, 'ready');
      child.kill(signal);
      const { status, stderr } = await result;
      assert.deepEqual([status, stderr], [9, '']);
    });

    it(`dies of ${signal} with the command`, async () => {
      // bash itself ignores SIGQUIT; cat has taken its place when it answers.
      const child = start(wrapper, ['ulimit -c 0; exec cat'], { env });
      const result = finish(child);
      child.stdin.write('ready\n');
      await printed(child, 'ready');
      child.kill(signal);
      assert.deepEqual(await result, { status: null, signal, stdout: 'ready\n', stderr: '' });
    });
  }

  it('leaves no command behind when it is killed, for the daemon sees it go', async () => {
    await using own = await Peer.listen(join(folder.path, 'own'));
    const child = start(wrapper, ['echo ready; read -r; exit 0'], { env: { AGENTRM_SOCKET: own.path } });
    const result = finish(child);
    await printed(child, 'ready');
    await own.message('late');
    const [socket] = own.sockets;
    const closed = new Promise((resolve) => socket?.once('close', resolve));
    child.kill('SIGKILL');
    await closed;
    child.stdin.end('\n');
    assert.equal((await result).signal, 'SIGKILL');
    assert.deepEqual(
      own.messages.map(({ op }) => op),
      ['run', 'late'],
    );
  });

  it('keeps the timer that its caller has set', async () => {
    const script =
      'import os, signal, sys; signal.setitimer(signal.ITIMER_REAL, 0.3); os.execv(sys.argv[1], sys.argv[1:])';
    const result = await run('python3', ['-c', script, wrapper, 'exec sleep 100'], { env });
    assert.deepEqual(result, { status: null, signal: 'SIGALRM', stdout: '', stderr: '' });
  });

  for (const options of [
    [],
    ['--ignore-signal=CHLD'],
    ['--ignore-signal=HUP,INT,TSTP,PIPE'],
    ['--block-signal=USR1,TERM,CHLD'],
  ]) {
    it(`gives the command the signal state of its caller: ${options.join(' ') || 'the usual one'}`, async () => {
      const command =
        'while read -r line; do [[ $line == Sig* && $line != SigQ* ]] && echo "$line"; done </proc/$$/status; exit 3';
      const expected = await run('/usr/bin/env', [...options, bash, '-c', command], { env });
      assert.match(expected.stdout, /SigBlk.*\nSigIgn.*\nSigCgt/);
      assert.deepEqual(await run('/usr/bin/env', [...options, wrapper, '-c', command], { env }), expected);
    });
  }

  for (const how of ['wrapper', 'group'] as const) {
    it(`stops and goes on with the command when SIGTSTP goes to the ${how}`, async () => {
      const args = ['-c', jobControl, how, wrapper, 'echo $$; read -r line; echo "$line"; exit 3'];
      const { stdout, stderr } = await run('python3', args, { env });
      assert.equal(stderr, '');
      assert.equal(stdout, 'stopped by 20 command T\nexited 3\ngo on\n');
    });
  }

  it('does not show a SIGSTOP of the command to its caller', async () => {
    const args = ['-c', jobControl, 'command', wrapper, 'echo $$; read -r line; echo "$line"; exit 3'];
    const { stdout, stderr } = await run('python3', args, { env });
    assert.equal(stderr, '');
    assert.equal(stdout, 'exited 3\ngo on\n');
  });

  it('ends with its own command, not with another child of its process', async () => {
    // `exec` hands the background job over to the wrapper.
    const script = `sleep 0.1 & exec ${wrapper} 'sleep 0.3; exit 3'`;
    assert.equal((await run(bash, ['-c', script], { env })).status, 3);
  });

  it('ends when the command ends, whoever still holds the output', async () => {
    const script = `${wrapper} 'sleep 100 & echo $!; exit 3' >${folder.path}/pid; status=$?; kill "$(<${folder.path}/pid)"; exit $status`;
    assert.equal((await run(bash, ['-c', script], { env })).status, 3);
  });
});
