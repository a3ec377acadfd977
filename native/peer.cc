// SPDX-License-Identifier: Apache-2.0
#include "peer.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "args.h"
#include "errors.h"
#include "fd.h"

// Newer than the C library of Debian 12 (glibc 2.36).
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace agentrm {
namespace {

// The kernel's own limit (SCM_MAX_FD).
constexpr size_t maxFds = 253;

int pidfdOpen(pid_t pid) {
	return static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
}

int pidfdSendSignal(int pidfd, int signal) {
	return static_cast<int>(syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0));
}

struct Identity {
	uid_t uid;
	unsigned long long startTicks;
};

std::string readProc(pid_t pid, const char *name) {
	Fd file(open(("/proc/" + std::to_string(pid) + "/" + name).c_str(), O_RDONLY | O_CLOEXEC));
	char text[4096];
	const ssize_t length = file ? read(file.get(), text, sizeof(text)) : -1;
	return length > 0 ? std::string(text, static_cast<size_t>(length)) : std::string();
}

// Effective uid and start time of a process. The owner of the /proc directory would not do: it is root for a process
// that is not dumpable, such as one with file capabilities.
bool identify(pid_t pid, Identity *identity) {
	const std::string status = readProc(pid, "status");
	const size_t uids = status.find("\nUid:");
	if (uids == std::string::npos || sscanf(status.c_str() + uids, "\nUid: %*u %u", &identity->uid) != 1)
		return false;
	// The second field is the command in parentheses and may itself hold spaces and parentheses.
	const std::string stat = readProc(pid, "stat");
	size_t at = stat.rfind(')');
	for (int field = 2; field < 22 && at != std::string::npos; field++)
		at = stat.find(' ', at + 1);
	if (at == std::string::npos)
		return false;
	identity->startTicks = strtoull(stat.c_str() + at, nullptr, 10);
	return true;
}

// Before SO_PEERPIDFD: the number may have been given to another process since connect(2). A process that has another
// owner is surely another one; the same start time before and after the open ties the pidfd to what was checked.
Fd pidfdByNumber(const struct ucred &cred) {
	Identity before, after;
	if (!identify(cred.pid, &before))
		return Fd();
	Fd pidfd(pidfdOpen(cred.pid));
	if (!pidfd || !identify(cred.pid, &after))
		return Fd();
	if (before.startTicks != after.startTicks || before.uid != cred.uid || after.uid != cred.uid)
		return Fd();
	return pidfd;
}

Fd peerPidfd(int sock, const struct ucred &cred) {
	int pidfd = -1;
	socklen_t length = sizeof(pidfd);
	if (getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) == 0) {
		// Since 6.16 a process that has been reaped still gets one.
		Fd peer(pidfd);
		return pidfdSendSignal(peer.get(), 0) == 0 ? std::move(peer) : Fd();
	}
	return errno == ENOPROTOOPT ? pidfdByNumber(cred) : Fd();
}

Napi::Value peerCred(const Napi::CallbackInfo &info) {
	const int sock = intArg(info[0], "fd");
	struct ucred cred;
	socklen_t length = sizeof(cred);
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &length) != 0)
		throw systemError(info.Env(), {errno, "getsockopt", "", ""});
	// A socket that is not connected has no peer, but the kernel answers all the same: pid 0, uid -1.
	if (cred.pid == 0 && cred.uid == static_cast<uid_t>(-1))
		throw systemError(info.Env(), {ENOTCONN, "getsockopt", "", ""});
	// Pid 0 is a peer in another pid namespace: there is no number for it here.
	Fd pidfd = cred.pid > 0 ? peerPidfd(sock, cred) : Fd();

	Napi::Object peer = Napi::Object::New(info.Env());
	peer.Set("pid", static_cast<double>(cred.pid));
	peer.Set("uid", static_cast<double>(cred.uid));
	peer.Set("gid", static_cast<double>(cred.gid));
	peer.Set("pidfd", pidfd.release());
	return peer;
}

void sendFds(const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	const int sock = intArg(info[0], "sock");
	std::string data = stringArg(info[1], "data");
	if (data.empty())
		throw argValue(env, "data", "must not be empty: descriptors travel with at least one byte");
	if (!info[2].IsArray())
		throw argType(env, "fds", "an array");
	const Napi::Array list = info[2].As<Napi::Array>();
	if (list.Length() > maxFds)
		throw argValue(env, "fds", "must not hold more than 253 descriptors");

	std::vector<int> fds;
	for (uint32_t i = 0; i < list.Length(); i++)
		fds.push_back(intArg(list.Get(i), "fds"));

	struct iovec part = {data.data(), data.size()};
	struct msghdr message = {};
	message.msg_iov = &part;
	message.msg_iovlen = 1;
	std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
	if (!fds.empty()) {
		message.msg_control = control.data();
		message.msg_controllen = control.size();
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
		memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
	}
	const ssize_t sent = sendmsg(sock, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0)
		throw systemError(env, {errno, "sendmsg", "", ""});
	// A stream socket may take a part only. The rest would have to follow without the descriptors; the messages that
	// carry descriptors are far shorter than any socket buffer, so this is a peer that does not read.
	if (static_cast<size_t>(sent) != data.size())
		throw systemError(env, {EAGAIN, "sendmsg", "", ""});
}

Napi::Value openPidfd(const Napi::CallbackInfo &info) {
	const int fd = pidfdOpen(intArg(info[0], "pid"));
	if (fd < 0)
		throw systemError(info.Env(), {errno, "pidfd_open", "", info[0].ToString()});
	return Napi::Number::New(info.Env(), fd);
}

void signalPidfd(const Napi::CallbackInfo &info) {
	const int pidfd = intArg(info[0], "pidfd");
	const int signal = intArg(info[1], "signal");
	if (pidfdSendSignal(pidfd, signal) != 0)
		throw systemError(info.Env(), {errno, "pidfd_send_signal", "", ""});
}

}  // namespace

void exportPeer(Napi::Env env, Napi::Object exports) {
	exports.Set("peerCred", Napi::Function::New(env, peerCred, "peerCred"));
	exports.Set("sendFds", Napi::Function::New(env, sendFds, "sendFds"));
	exports.Set("pidfdOpen", Napi::Function::New(env, openPidfd, "pidfdOpen"));
	exports.Set("pidfdSendSignal", Napi::Function::New(env, signalPidfd, "pidfdSendSignal"));
}

}  // namespace agentrm
