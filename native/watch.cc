// SPDX-License-Identifier: Apache-2.0
#include "watch.h"

#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>

#include "args.h"
#include "errors.h"
#include "poll.h"

namespace agentrm {
namespace {

// A kernfs file stays ready until it is read through the same descriptor. False when its cgroup has been removed.
bool rearm(int fd) {
	char text[4096];
	return pread(fd, text, sizeof(text), 0) >= 0 || errno != ENODEV;
}

Napi::Value watch(const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	const int fd = intArg(info[0], "fd");
	const std::string events = stringArg(info[1], "events");
	if (events != "readable" && events != "priority")
		throw argValue(env, "events", "must be 'readable' or 'priority'");
	const bool priority = events == "priority";
	auto callback = std::make_shared<Napi::FunctionReference>(Napi::Persistent(functionArg(info[2], "callback")));

	// The weak pointer, because the poll owns this function.
	auto weak = std::make_shared<std::weak_ptr<Poll>>();
	auto ready = [fd, priority, callback, weak](int status) {
		// libuv reports an error once and stops watching by itself, so a dead file cannot spin the loop.
		if (status != 0 || (priority && !rearm(fd)))
			if (auto poll = weak->lock())
				poll->close();
		callFromLoop(*callback, {});
	};
	if (priority)
		rearm(fd);
	std::shared_ptr<Poll> poll = Poll::start(env, fd, priority ? UV_PRIORITIZED : UV_READABLE, std::move(ready));
	*weak = poll;

	Napi::Object handle = Napi::Object::New(env);
	handle.Set("close", Napi::Function::New(
				    env, [poll](const Napi::CallbackInfo &) { poll->close(); }, "close"));
	return handle;
}

}  // namespace

void exportWatch(Napi::Env env, Napi::Object exports) {
	exports.Set("watch", Napi::Function::New(env, watch, "watch"));
}

}  // namespace agentrm
