// SPDX-License-Identifier: Apache-2.0
#include "call.h"

#include <elf.h>
#include <errno.h>
#include <linux/limits.h>
#include <linux/magic.h>
#include <sys/statfs.h>
#include <sys/un.h>

#include "env.h"
#include "request.h"
#include "run.h"
#include "runtime.h"
#include "say.h"
#include "stack.h"
#include "text.h"

#define SYSTEM_SOCKET "/run/agentrm/agentrm.sock"
#define USER_SOCKET "/agentrm/agentrm.sock" /* below XDG_RUNTIME_DIR */

/* Set-up may fail; that is no reason not to run, unless the administrator said it is. */
static int run_unmanaged(struct run *run, const char *why, const char *what)
{
	bool refuse = fail_closed(run->socket);

	say("agentrm: ", why, what, refuse ? ", not run (fail-closed)" : ", running unmanaged");
	channel_close(&run->daemon);
	caps_drop(&run->caps);
	return refuse ? EXIT_REFUSED : command_exec(&run->cmd);
}

/* In the child: has the daemon move it into the cgroup of the call. */
static void place(void *arg)
{
	static struct channel c;
	static char line_out[ID_BYTES * 8];
	struct run *run = arg;
	int64_t limit_ns = now_ns() + BUSY_ANSWER_NS;
	struct text t = TEXT_IN(line_out);
	char *line = NULL;
	bool placed;

	request_place(&t, run->token);
	placed = daemon_connect(&c, run->socket, run->uid, limit_ns) == 0 &&
		 channel_send(&c, line_out, (size_t)(t.at - line_out), limit_ns) &&
		 channel_line(&c, &line, limit_ns) == CHANNEL_LINE && same(line, "placed");
	if (!placed) {
		bool refuse = fail_closed(run->socket);
		const char *why = line && begins(line, "failed ") ? line + len("failed ") : "no answer";

		say("agentrm: not placed: ", why,
		    refuse ? ", not run (fail-closed)" : ", running unmanaged");
		if (refuse)
			sys_exit(EXIT_REFUSED);
	}
	channel_close(&c);
}

/* With the capability from the file only root says where to: else it could do more than the caller could. */
static bool trusted(const struct run *run)
{
	return run->daemon.peer.uid == 0 || !run->caps.from_file;
}

static bool is_cgroup2(int fd)
{
	struct statfs fs;

	return SYS2(fstatfs, fd, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC;
}

/* Starts the command in the cgroup that the daemon sent; -errno if it sent none, or that is not possible. */
static long start_in_cgroup(struct run *run)
{
	int cgroup = channel_take_fd(&run->daemon);
	long child = -EBADF;

	/* A daemon of the caller's own user: where that may fork into, the caller may by itself. */
	if (cgroup >= 0 && !trusted(run))
		caps_drop(&run->caps);
	if (cgroup >= 0 && is_cgroup2(cgroup))
		child = command_start(&run->cmd, cgroup);
	if (cgroup >= 0)
		SYS1(close, cgroup);
	return child;
}

/* Forks the command, stays with it and ends like it. Returns only if it could not be started. */
static int run_managed(struct run *run, enum answer answer)
{
	struct rusage usage;
	int status;
	long child = -1;

	if (signals_take(&run->signals) < 0)
		return run_unmanaged(run, "no descriptor is left", "");
	run->cmd.mask = run->signals.mask;
	run->cmd.child_action = run->signals.child_action;
	if (answer == ANSWER_MOVE) {
		run->cmd.before = place;
		run->cmd.arg = run;
	} else if (answer == ANSWER_CLONE) {
		child = start_in_cgroup(run);
	}
	if (child < 0) {
		child = command_start(&run->cmd, -1);
		if (child >= 0 && answer == ANSWER_CLONE)
			send_late(run);
	}
	if (child < 0) {
		signals_give_back(&run->signals);
		return run_unmanaged(run, "cannot fork", "");
	}
	supervise(run, (int)child, &status, &usage);
	report_end(run, status, &usage);
	end_like(status);
}

/* Connects to where the environment says, else to the system's daemon, else to the user's own. */
static int find_daemon(struct run *run, const struct env *env, int64_t deadline_ns)
{
	static char user_socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct text t = { .at = user_socket, .end = user_socket + sizeof(user_socket) - 1 };
	int ret;

	run->socket = env->socket ? env->socket : SYSTEM_SOCKET;
	ret = daemon_connect(&run->daemon, run->socket, run->uid, deadline_ns);
	if (ret == 0 || env->socket || !env->runtime_dir)
		return ret;
	text_put(&t, env->runtime_dir);
	text_put(&t, USER_SOCKET);
	if (t.full)
		return ret;
	if (daemon_connect(&run->daemon, user_socket, run->uid, deadline_ns) == 0) {
		run->socket = user_socket;
		return 0;
	}
	/* Whichever of the two is here, what it left for this case holds. */
	if (fail_closed(user_socket) && !fail_closed(run->socket))
		run->socket = user_socket;
	return ret;
}

static bool send_request(struct run *run, const struct env *env, int64_t deadline_ns)
{
	static char line[REQUEST_BYTES];
	struct text t = TEXT_IN(line);

	/* A capability from the file is for the system's daemon only. */
	request_run(&t, run->cmd.argv, env, run->caps.can_clone && trusted(run));
	return channel_send(&run->daemon, line, (size_t)(t.at - line), deadline_ns);
}

static int run_with_daemon(struct run *run, const struct env *env)
{
	int64_t start_ns = now_ns(), code = 0;
	int ret = find_daemon(run, env, start_ns + FIRST_ANSWER_NS);
	enum answer answer;

	if (ret == -EPERM || ret == -EACCES)
		return run_unmanaged(run, "not allowed to use the daemon at ", run->socket);
	if (ret < 0)
		return run_unmanaged(run, "no daemon at ", run->socket);
	if (!send_request(run, env, start_ns + FIRST_ANSWER_NS))
		return run_unmanaged(run, "lost the daemon at ", run->socket);

	answer = answer_await(run, start_ns, env->admission_ms, &code);
	switch (answer) {
	case ANSWER_REFUSE:
		return (int)code;
	case ANSWER_NONE:
		caps_drop(&run->caps);
		return command_exec(&run->cmd);
	case ANSWER_BROKEN:
		return run_unmanaged(run, "no valid answer from the daemon at ", run->socket);
	case ANSWER_LATE:
		if (fail_closed(run->socket))
			return run_unmanaged(run, "no answer in time from the daemon at ", run->socket);
		say("agentrm: no answer yet from the daemon at ", run->socket,
		    ", running unmanaged until it comes");
		break;
	default:
		break;
	}
	return run_managed(run, answer);
}

/* What the kernel says of this process at its start, after the environment. */
static uint64_t auxv(char **envp, uint64_t type)
{
	Elf64_auxv_t *aux;

	while (*envp)
		envp++;
	for (aux = (Elf64_auxv_t *)(envp + 1); aux->a_type != AT_NULL; aux++)
		if (aux->a_type == type)
			return aux->a_un.a_val;
	return 0;
}

void call_be_caller(char **envp)
{
	uint64_t uid = auxv(envp, AT_UID), gid = auxv(envp, AT_GID);

	if (gid == auxv(envp, AT_EGID) && uid == auxv(envp, AT_EUID))
		return;
	SYS3(setresgid, gid, gid, gid);
	SYS3(setresuid, uid, uid, uid);
}

int call_run(const char *shell, char **argv, char **envp)
{
	static struct run run;
	static char underscore[PATH_MAX];
	bool secure = auxv(envp, AT_SECURE);
	struct env env;

	run.daemon.sock = run.daemon.fd = -1;
	run.uid = (uint32_t)auxv(envp, AT_UID);
	run.caps = caps_read(run.uid != 0 && secure);
	if (secure)
		stack_limit_give_back();
	run.cmd = (struct command){ .file = shell, .argv = argv, .envp = envp, .caps = &run.caps };
	env = env_read(envp, shell, underscore, sizeof(underscore));
	if (env.no_call) {
		caps_drop(&run.caps);
		return command_exec(&run.cmd);
	}
	return run_with_daemon(&run, &env);
}
