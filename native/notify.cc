// SPDX-License-Identifier: Apache-2.0
#include "notify.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#include "args.h"
#include "errors.h"
#include "fd.h"

namespace agentrm {
namespace {

Napi::Value notify(const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	const std::string state = stringArg(info[0], "state");
	const char *variable = getenv("NOTIFY_SOCKET");
	if (!variable || !*variable)
		return Napi::Boolean::New(env, false);
	const std::string path = variable;

	struct sockaddr_un address = {};
	address.sun_family = AF_UNIX;
	if (path.size() >= sizeof(address.sun_path))
		throw systemError(env, {ENAMETOOLONG, "connect", path, ""});
	memcpy(address.sun_path, path.data(), path.size());
	// The environment spells an abstract name with @ where the kernel wants a NUL; its length then counts.
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	const socklen_t length = static_cast<socklen_t>(offsetof(struct sockaddr_un, sun_path) + path.size());

	Fd sock(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	if (!sock)
		throw systemError(env, {errno, "socket", "", ""});
	if (sendto(sock.get(), state.data(), state.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
		   reinterpret_cast<struct sockaddr *>(&address), length) < 0)
		throw systemError(env, {errno, "sendto", path, ""});
	return Napi::Boolean::New(env, true);
}

}  // namespace

void exportNotify(Napi::Env env, Napi::Object exports) {
	exports.Set("notify", Napi::Function::New(env, notify, "notify"));
}

}  // namespace agentrm
