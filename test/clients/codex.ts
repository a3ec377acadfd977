// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type Received, type Script, STREAM_HEADERS, StandIn } from '../proxy/upstream.ts';

const PACKAGE = join(
  import.meta.dirname,
  `../../.tools/clients/node_modules/@openai/codex-linux-${process.arch}/vendor`,
);
const MACHINE = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
const BINARY = join(PACKAGE, `${MACHINE}-unknown-linux-musl/bin/codex`);

/** Why Codex cannot run here, or false; fits the `skip` option of a test. */
export const codexMissing: string | false = existsSync(BINARY)
  ? false
  : 'Codex is not installed: make test-clients-setup';

/** A body of POST /v1/responses, as far as it is looked at here. */
export interface ResponsesRequest {
  readonly stream?: boolean;
  readonly store?: boolean;
  readonly tools?: readonly { readonly type: string; readonly name?: string }[];
  readonly input: readonly { readonly type: string; readonly call_id?: string; readonly output?: string }[];
}

/** What came of a run. */
export interface CodexRun {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Everything that the API was asked. */
  readonly requests: readonly Received[];
  /** What the model was told about each command. */
  readonly outputs: readonly string[];
}

// No test comes near it: it takes some seconds, in an emulated machine ten times as long.
const TIMEOUT_MS = 180_000;

/** Is told to run the commands one after another, then says that it is done. */
function script(commands: readonly string[]): Script {
  return ({ method, target, body }, index) => {
    if (method !== 'POST' || !target.endsWith('/responses')) return { status: 404, steps: ['{}'] };
    const asked = JSON.parse(body.toString()) as ResponsesRequest;
    const command = commands[outputsIn(asked).length];
    const item =
      command === undefined
        ? {
            type: 'message',
            id: 'msg_1',
            role: 'assistant',
            status: 'completed',
            content: [{ type: 'output_text', text: 'done', annotations: [] }],
          }
        : {
            type: 'function_call',
            id: `fc_${index}`,
            call_id: `call_${index}`,
            name: 'exec_command',
            arguments: JSON.stringify({ cmd: command }),
            status: 'completed',
          };
    const usage = { input_tokens: 10, output_tokens: 5, total_tokens: 15 };
    const response = { id: `resp_${index}`, object: 'response', status: 'completed', output: [item], usage };
    const events = [
      { type: 'response.created', response: { ...response, status: 'in_progress', output: [], usage: null } },
      { type: 'response.output_item.added', output_index: 0, item },
      { type: 'response.output_item.done', output_index: 0, item },
      { type: 'response.completed', response },
    ];
    const encoded = events.map(
      (event, at) => `event: ${event.type}\ndata: ${JSON.stringify({ ...event, sequence_number: at })}\n\n`,
    );
    return { headers: STREAM_HEADERS, steps: encoded };
  };
}

function outputsIn({ input }: ResponsesRequest): string[] {
  return input.flatMap(({ type, output }) => (type === 'function_call_output' ? [output ?? ''] : []));
}

/** The turns among requests. */
export function turnsOf(requests: readonly Received[]): ResponsesRequest[] {
  return requests
    .filter(({ method, target }) => method === 'POST' && target.endsWith('/responses'))
    .map(({ body }) => JSON.parse(body.toString()) as ResponsesRequest);
}

/**
 * Runs `codex exec` against a scripted model, with a home and a working directory that vanish with it, and without an
 * account.
 * @param before the base URL of what stands before the API; absent: the API itself
 */
export async function runCodex(
  commands: readonly string[],
  before?: (apiUrl: string) => Promise<string>,
): Promise<CodexRun> {
  const home = await mkdtemp(join(tmpdir(), 'agentrm-codex-'));
  const api = new StandIn(script(commands));
  await api.listen();
  try {
    const url = (await before?.(api.url)) ?? api.url;
    await mkdir(join(home, '.codex'));
    await mkdir(join(home, 'work'));
    const provider = ['[model_providers.here]', 'name = "here"', `base_url = "${url}/v1"`];
    const lines = [
      'model_provider = "here"',
      ...provider,
      'wire_api = "responses"',
      'env_key = "API_KEY"',
      '',
    ];
    await writeFile(join(home, '.codex/config.toml'), lines.join('\n'));
    const args = [
      'exec',
      '--skip-git-repo-check',
      '--dangerously-bypass-approvals-and-sandbox',
      '-m',
      'gpt-5',
    ];
    const child = spawn(BINARY, [...args, 'Run what you are told to run.'], {
      cwd: join(home, 'work'),
      // What it might want from other hosts ends where nothing lets it through.
      env: {
        PATH: process.env.PATH,
        LANG: 'C.UTF-8',
        HOME: home,
        SHELL: '/bin/bash',
        API_KEY: 'none',
        HTTPS_PROXY: api.url,
        NO_PROXY: '127.0.0.1',
      },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: TIMEOUT_MS,
    });
    const [stdout, stderr, [code]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'close') as Promise<[number | null]>,
    ]);
    const last = turnsOf(api.received).at(-1);
    return {
      code,
      stdout,
      stderr,
      requests: api.received,
      outputs: last === undefined ? [] : outputsIn(last),
    };
  } finally {
    await api.close();
    await rm(home, { recursive: true, force: true, maxRetries: 5 });
  }
}
