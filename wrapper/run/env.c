// SPDX-License-Identifier: Apache-2.0
#include "env.h"

#include "text.h"

static const char *value_of(const char *pair, const char *name)
{
	size_t n = len(name);

	return begins(pair, name) && pair[n] == '=' && pair[n + 1] ? pair + n + 1 : NULL;
}

static bool ends(const char *s, const char *suffix)
{
	size_t n = len(s), m = len(suffix);

	return n >= m && same(s + n - m, suffix);
}

struct env env_read(char **envp, const char *shell, char *underscore, size_t n)
{
	struct env env = { .admission_ms = -1 };
	const char *claude_session = NULL, *known_agent = NULL, *v;
	bool claude = false, claude_child = false;

	for (char **pair = envp; *pair; pair++) {
		if ((*pair)[0] == '_' && (*pair)[1] == '=') {
			struct text t = { .at = underscore, .end = underscore + n - 1 };

			text_put(&t, "_=");
			text_put(&t, shell);
			*t.at = '\0';
			*pair = underscore;
		} else if ((v = value_of(*pair, "AGENTRM_SOCKET"))) {
			env.socket = v;
		} else if ((v = value_of(*pair, "AGENTRM_INTENT"))) {
			env.intent = v;
		} else if ((v = value_of(*pair, "AGENTRM_SESSION"))) {
			env.session = v;
		} else if ((v = value_of(*pair, "AGENTRM_AGENT"))) {
			env.agent = v;
		} else if ((v = value_of(*pair, "AGENTRM_ADMISSION_MS"))) {
			env.admission_ms = number(v);
		} else if ((v = value_of(*pair, "CLAUDE_CODE_SESSION_ID"))) {
			claude_session = v;
		} else if ((v = value_of(*pair, "XDG_RUNTIME_DIR"))) {
			env.runtime_dir = v;
		} else if ((v = value_of(*pair, "AGENTRM_DISABLE"))) {
			env.no_call |= same(v, "1");
		} else if ((v = value_of(*pair, "AI_AGENT"))) {
			env.no_call |= begins(v, "claude-code") && ends(v, "_harness");
		} else if (value_of(*pair, "CLAUDE_CODE_CHILD_SESSION")) {
			claude_child = true;
		} else if ((v = value_of(*pair, "CLAUDECODE"))) {
			claude |= same(v, "1");
			known_agent = "claude-code";
		} else if (value_of(*pair, "GEMINI_CLI")) {
			known_agent = "gemini-cli";
		}
	}
	/*
	 * What Claude Code starts for itself is no tool call: hooks, the status line,
	 * and MCP servers, which live as long as it does. Versions that do not mark
	 * these as its harness's still tell servers.
	 */
	env.no_call |= claude && !claude_child;
	if (!env.session)
		env.session = claude_session;
	if (!env.agent)
		env.agent = known_agent;
	return env;
}
