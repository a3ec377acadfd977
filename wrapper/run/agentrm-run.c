// SPDX-License-Identifier: Apache-2.0
// agentrm-run SHELL [ARGUMENT...]: runs any shell as a managed tool call.

#include "call.h"
#include "say.h"

int main(int argc, char **argv, char **envp)
{
	call_be_caller(envp);
	if (argc < 2 || argv[1][0] != '/') {
		say("usage: agentrm-run /absolute/path/of/shell [ARGUMENT...]");
		return EXIT_REFUSED;
	}
	return call_run(argv[1], argv + 1, envp);
}
