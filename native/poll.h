// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>
#include <uv.h>

#include <functional>
#include <initializer_list>
#include <memory>

namespace agentrm {

// A uv_poll_t on the loop of one environment. The handle outlives its owner until libuv has let go of it, and closes
// itself when the environment (process or worker thread) ends first.
class Poll {
 public:
	// `ready` gets 0 or a negative errno and runs inside a HandleScope; it may call close() and must not throw.
	// Throws Napi::Error if the descriptor cannot be polled.
	static std::shared_ptr<Poll> start(Napi::Env env, int fd, int uvEvents, std::function<void(int)> ready);
	void close();
	~Poll();

 private:
	explicit Poll(napi_env env) : env_(env) {}
	static void onReady(uv_poll_t *handle, int status, int events);
	static void onClosed(uv_handle_t *handle);
	static void onCleanup(napi_async_cleanup_hook_handle hook, void *self);

	napi_env env_;
	uv_poll_t handle_;
	std::function<void(int)> ready_;
	napi_async_cleanup_hook_handle hook_ = nullptr;
	// Keeps the object alive while libuv refers to handle_.
	std::shared_ptr<Poll> self_;
};

// Calls a JavaScript function from the loop. An exception becomes an uncaught one, as in any other callback. While a
// worker thread is being terminated nothing can be called and nothing happens: node-addon-api's own MakeCallback aborts
// the process then.
void callFromLoop(const Napi::FunctionReference &function, std::initializer_list<napi_value> arguments);

}  // namespace agentrm
