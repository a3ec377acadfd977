// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type BashInput, bashScript, type ToolResult, toolResults } from './bash-script.ts';
import { type RecordedRequest, startModelApi } from './model-api.ts';

const BINARY = join(
  import.meta.dirname,
  `../../.tools/clients/node_modules/@anthropic-ai/claude-code-linux-${process.arch}/claude`,
);

/** Why Claude Code cannot run here, or false; fits the `skip` option of a test. */
export const claudeCodeMissing: string | false = existsSync(BINARY)
  ? false
  : 'Claude Code is not installed: make test-clients-setup';

/** What to run and around what. */
export interface ClaudeOptions {
  /** Rounds of Bash tool calls; those of one round run in parallel as far as Claude Code allows. */
  rounds: BashInput[][];
  /** CLAUDE_CODE_SHELL_PREFIX; absent: commands run as if AgentRM were not there. */
  prefix?: string;
  /** Environment on top of the little that every run gets. */
  env?: Record<string, string>;
  /** ANTHROPIC_BASE_URL, of what stands before the stand-in for the API; absent: the stand-in itself. */
  before?: (apiUrl: string) => Promise<string>;
  /** Content of the user's settings.json. */
  settings?: object;
  /** Servers of an --mcp-config file. */
  mcpServers?: object;
}

/** What came of a run. */
export interface ClaudeRun {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  sessionId: string;
  /** What the model was told about each tool call, in the order of the rounds. */
  results: ToolResult[];
  requests: RecordedRequest[];
}

// No test comes near it: a call takes 0.2 s, in an emulated machine 4 s, and Claude Code itself 1 s or 30 s.
const TIMEOUT_MS = 180_000;

/**
 * Run `claude -p` against a scripted model, with a home, a working directory and a temporary folder that
 * vanish with it, and without an account. Everything that it might want from another host ends at the
 * stand-in, so `requests` shows that.
 */
export async function runClaudeCode(options: ClaudeOptions): Promise<ClaudeRun> {
  const sessionId = randomUUID();
  const home = await mkdtemp(join(tmpdir(), 'agentrm-claude-'));
  const api = await startModelApi(bashScript(options.rounds));
  try {
    await mkdir(join(home, '.claude'));
    await mkdir(join(home, 'tmp'));
    await mkdir(join(home, 'work'));
    await writeFile(join(home, '.claude/settings.json'), JSON.stringify(options.settings ?? {}));
    await writeFile(join(home, 'mcp.json'), JSON.stringify({ mcpServers: options.mcpServers ?? {} }));
    const child = spawn(
      BINARY,
      [
        ...['-p', 'Run what you are told to run.', '--session-id', sessionId],
        ...['--allowedTools', 'Bash', '--mcp-config', join(home, 'mcp.json'), '--strict-mcp-config'],
      ],
      {
        cwd: join(home, 'work'),
        env: {
          PATH: process.env.PATH,
          LANG: 'C.UTF-8',
          HOME: home,
          SHELL: '/bin/bash',
          TMPDIR: join(home, 'tmp'),
          CLAUDE_CODE_TMPDIR: join(home, 'tmp'),
          ANTHROPIC_BASE_URL: (await options.before?.(api.url)) ?? api.url,
          ANTHROPIC_API_KEY: 'none',
          HTTPS_PROXY: api.url,
          NO_PROXY: '127.0.0.1',
          CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
          DISABLE_AUTOUPDATER: '1',
          DISABLE_TELEMETRY: '1',
          DISABLE_ERROR_REPORTING: '1',
          // Its own cap would be a second writer in the same cgroups.
          CLAUDE_CODE_TOOL_MEMORY_LIMIT: 'off',
          ...(options.prefix === undefined ? {} : { CLAUDE_CODE_SHELL_PREFIX: options.prefix }),
          ...options.env,
        },
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: TIMEOUT_MS,
      },
    );
    const [stdout, stderr, [code, signal]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>,
    ]);
    const last = api.messagesRequests().at(-1);
    const results = last === undefined ? [] : toolResults(last);
    return { code, signal, stdout, stderr, sessionId, results, requests: api.requests };
  } finally {
    await api.close();
    await rm(home, { recursive: true, force: true, maxRetries: 5 });
  }
}
