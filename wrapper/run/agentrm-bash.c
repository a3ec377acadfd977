// SPDX-License-Identifier: Apache-2.0
// Takes the place of bash in an agent's configuration and runs bash as a managed
// tool call. README.md lists the forms of its arguments. A shell script could do
// this as well, at the price of one start of bash for each call.

#include <stdbool.h>

#include <asm/stat.h>
#include <linux/fcntl.h>

#include "call.h"
#include "sys.h"

/* Neither looked up nor configurable: it must not be a link back to this program. */
#define BASH "/bin/bash"
/* What `bash ...` has as $0, and before its complaints. */
#define NAME "bash"

#define R_OK 4
#define X_OK 1
#define IS_REGULAR(mode) (((mode)&0170000) == 0100000)

static bool has_slash(const char *s)
{
	while (*s && *s != '/')
		s++;
	return *s;
}

static bool may(const char *path, int what)
{
	return SYS3(faccessat, AT_FDCWD, path, what) == 0;
}

/* A script: a file for bash to read. What is executable is a command that bash is to run. */
static bool is_script(const char *word)
{
	struct stat st;

	return has_slash(word) && SYS4(newfstatat, AT_FDCWD, word, &st, 0) == 0 && IS_REGULAR(st.st_mode) &&
	       may(word, R_OK) && !may(word, X_OK);
}

int main(int argc, char **argv, char **envp)
{
	static char *command_line[] = { NAME, "-c", NULL, NULL };

	call_be_caller(envp);
	if (argc == 2 && argv[1][0] != '-' && !is_script(argv[1])) {
		command_line[2] = argv[1];
		argv = command_line;
	} else if (argc > 0 && argv[0][0] == '-') {
		/* As login(1) asks for a login shell. */
		argv[0] = "-bash";
	} else if (argc > 0) {
		argv[0] = NAME;
	}
	return call_run(BASH, argv, envp);
}
