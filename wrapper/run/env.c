// SPDX-License-Identifier: Apache-2.0
#include "env.h"

#include "text.h"

static const char *value_of(const char *pair, const char *name)
{
	size_t n = len(name);

	return begins(pair, name) && pair[n] == '=' && pair[n + 1] ? pair + n + 1 : NULL;
}

struct env env_read(char **envp, const char *shell, char *underscore, size_t n)
{
	struct env env = { .admission_ms = -1 };
	const char *claude_session = NULL, *known_agent = NULL, *v;

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
		} else if (value_of(*pair, "CLAUDECODE")) {
			known_agent = "claude-code";
		} else if (value_of(*pair, "GEMINI_CLI")) {
			known_agent = "gemini-cli";
		}
	}
	if (!env.session)
		env.session = claude_session;
	if (!env.agent)
		env.agent = known_agent;
	return env;
}
