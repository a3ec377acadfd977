// SPDX-License-Identifier: Apache-2.0
// The real Claude Code through the proxy and beside it: it sends the same and does the same.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { type Lab, startProxy } from '../proxy/lab.ts';
import { type ClaudeRun, claudeCodeMissing, runClaudeCode } from './claude-code.ts';

const ROUNDS = [
  [{ command: 'echo one' }, { command: 'echo two >&2; exit 3' }],
  [{ command: 'seq 1 20000 | md5sum' }],
];

/** The bodies of its turns. Its own side requests may come in any order. */
function turns(run: ClaudeRun) {
  return run.requests
    .filter(({ method, path }) => method === 'POST' && path.split('?')[0] === '/v1/messages')
    .map(({ headers, body }) => ({
      headers,
      body,
      parsed: JSON.parse(body.toString()) as { tools?: { name: string }[] },
    }));
}

const paths = (run: ClaudeRun) =>
  [...new Set(run.requests.map(({ method, path }) => `${method} ${path}`))].sort();

suite('Claude Code through the proxy', { skip: claudeCodeMissing }, () => {
  let direct: ClaudeRun;
  let proxied: ClaudeRun;
  let lab: Lab | undefined;

  before(async () => {
    direct = await runClaudeCode({ rounds: ROUNDS });
    proxied = await runClaudeCode({
      rounds: ROUNDS,
      before: async (url) => {
        lab = await startProxy({ after }, { url });
        return lab.url;
      },
    });
  });

  test('it ends well, and the model is told the same', () => {
    assert.equal(proxied.code, 0, proxied.stderr);
    assert.equal(proxied.stdout, direct.stdout);
    assert.deepEqual(proxied.results, direct.results);
    assert.equal(proxied.results.length, 3);
  });

  test('as many requests, with the same tools, of the same size', () => {
    // HEAD / is answered by the proxy; everything else reaches the API.
    assert.deepEqual(
      paths(proxied),
      paths(direct).filter((path) => !path.startsWith('HEAD ')),
    );
    const [one, other] = [turns(direct), turns(proxied)];
    assert.equal(other.length, one.length);
    for (const [at, { parsed, body, headers }] of one.entries()) {
      const seen = other[at];
      assert.ok(seen);
      assert.deepEqual(
        seen.parsed.tools?.map(({ name }) => name),
        parsed.tools?.map(({ name }) => name),
      );
      assert.equal(seen.body.length, body.length);
      const names = (all: object) => Object.keys(all).sort();
      assert.deepEqual(names(seen.headers), names(headers));
    }
    assert.ok((one[0]?.parsed.tools?.length ?? 0) > 5, 'the first turn offers tools');
  });

  test('the proxy knew its turns', async () => {
    const { headers } = turns(proxied)[0] ?? assert.fail();
    assert.equal(headers['x-claude-code-session-id'], proxied.sessionId);
    assert.equal(lab?.proxy.metrics.turns('ok'), turns(proxied).length);
    assert.equal(lab?.scheduler.snapshot().running, 0);
  });
});
