// SPDX-License-Identifier: Apache-2.0
#include "heartbeat.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <memory>
#include <string>

#include "args.h"
#include "clock.h"
#include "errors.h"
#include "fd.h"
#include "mapping.h"

namespace agentrm {
namespace {

Napi::Value openHeartbeat(const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	const std::string path = stringArg(info[0], "path");
	Fd file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
	if (!file)
		throw systemError(env, {errno, "open", path, ""});
	// Readers of another uid must be able to open it whatever the umask is.
	if (fchmod(file.get(), 0644) != 0)
		throw systemError(env, {errno, "fchmod", path, ""});
	if (ftruncate(file.get(), sizeof(uint64_t)) != 0)
		throw systemError(env, {errno, "ftruncate", path, ""});
	// On a full disk the first beat would be a SIGBUS.
	if (const int error = posix_fallocate(file.get(), 0, sizeof(uint64_t)))
		throw systemError(env, {error, "fallocate", path, ""});
	auto mapping = std::make_shared<Mapping>();
	if (!mapping->map(file.get(), sizeof(uint64_t), PROT_READ | PROT_WRITE))
		throw systemError(env, {errno, "mmap", path, ""});

	Napi::Object heartbeat = Napi::Object::New(env);
	auto beat = [mapping](const Napi::CallbackInfo &) {
		if (mapping->get())
			__atomic_store_n(static_cast<uint64_t *>(mapping->get()), htole64(monotonicNs()), __ATOMIC_RELEASE);
	};
	auto close = [mapping](const Napi::CallbackInfo &) { mapping->reset(); };
	heartbeat.Set("beat", Napi::Function::New(env, beat, "beat"));
	heartbeat.Set("close", Napi::Function::New(env, close, "close"));
	return heartbeat;
}

Napi::Value monotonic(const Napi::CallbackInfo &info) {
	return Napi::BigInt::New(info.Env(), monotonicNs());
}

}  // namespace

void exportHeartbeat(Napi::Env env, Napi::Object exports) {
	exports.Set("openHeartbeat", Napi::Function::New(env, openHeartbeat, "openHeartbeat"));
	exports.Set("monotonicNs", Napi::Function::New(env, monotonic, "monotonicNs"));
}

}  // namespace agentrm
