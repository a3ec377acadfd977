// SPDX-License-Identifier: Apache-2.0
// The real Codex through the proxy and beside it: it sends the same and does the same.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { type Lab, startProxy } from '../proxy/lab.ts';
import { type CodexRun, codexMissing, runCodex, turnsOf } from './codex.ts';

const COMMANDS = ['echo one; exit 3', 'seq 1 20000 | md5sum'];

/** Of what the model is told of a command, what does not differ from run to run. */
const told = (output: string): string => output.replace(/^(Chunk ID|Wall time): .*\n/gm, '');

suite('Codex through the proxy', { skip: codexMissing }, () => {
  let direct: CodexRun;
  let proxied: CodexRun;
  let lab: Lab | undefined;

  before(async () => {
    direct = await runCodex(COMMANDS);
    proxied = await runCodex(COMMANDS, async (url) => {
      lab = await startProxy({ after }, { url });
      return lab.url;
    });
  });

  test('it ends well, and the model is told the same', () => {
    assert.equal(proxied.code, 0, proxied.stderr);
    assert.equal(proxied.stdout, direct.stdout);
    assert.match(proxied.stdout, /done/);
    assert.deepEqual(proxied.outputs.map(told), direct.outputs.map(told));
    assert.equal(proxied.outputs.length, COMMANDS.length);
    assert.match(proxied.outputs[0] ?? '', /exited with code 3[\s\S]*one/);
  });

  test('as many turns, with the same tools, of the same size', () => {
    const bodies = ({ requests }: CodexRun) =>
      requests.filter(({ method }) => method === 'POST').map(({ body }) => body.length);
    const tools = ({ requests }: CodexRun) =>
      turnsOf(requests).map((each) => each.tools?.map(({ name, type }) => name ?? type));
    assert.deepEqual(bodies(proxied), bodies(direct));
    assert.deepEqual(tools(proxied), tools(direct));
    assert.equal(tools(proxied).length, COMMANDS.length + 1);
    assert.ok((tools(proxied)[0]?.length ?? 0) > 5, 'the first turn offers tools');
  });

  test('the proxy knew its turns: one session, one run that has ended, safe to be sent again', () => {
    assert.equal(lab?.proxy.metrics.turns('ok'), COMMANDS.length + 1);
    const [session, ...others] = [...(lab?.scheduler.agents() ?? [])];
    assert.ok(session);
    assert.deepEqual(others, []);
    const id = proxied.requests.find(({ method }) => method === 'POST')?.headers['session-id'];
    assert.ok(id !== undefined && session.session.endsWith(`:${id}`), `${session.session} and ${id}`);
    assert.deepEqual(session.runs, []);
    assert.equal(session.class, 'interactive');
    assert.ok(turnsOf(proxied.requests).every(({ store, stream }) => store === false && stream === true));
  });
});
