// SPDX-License-Identifier: Apache-2.0
#include "poll.h"

#include "errors.h"

namespace agentrm {

std::shared_ptr<Poll> Poll::start(Napi::Env env, int fd, int uvEvents, std::function<void(int)> ready) {
	uv_loop_s *loop = nullptr;
	if (napi_get_uv_event_loop(env, &loop) != napi_ok)
		throw Napi::Error::New(env, "no event loop");
	std::shared_ptr<Poll> poll(new Poll(env));
	if (const int err = uv_poll_init(loop, &poll->handle_, fd))
		throw systemError(env, {-err, "uv_poll_init", pathOf(fd), ""});
	poll->handle_.data = poll.get();
	poll->self_ = poll;
	poll->ready_ = std::move(ready);
	if (napi_add_async_cleanup_hook(env, onCleanup, poll.get(), &poll->hook_) != napi_ok)
		poll->hook_ = nullptr;
	if (const int err = uv_poll_start(&poll->handle_, uvEvents, onReady)) {
		poll->close();
		throw systemError(env, {-err, "uv_poll_start", pathOf(fd), ""});
	}
	return poll;
}

void Poll::close() {
	uv_handle_t *handle = reinterpret_cast<uv_handle_t *>(&handle_);
	if (self_ && !uv_is_closing(handle))
		uv_close(handle, onClosed);
}

Poll::~Poll() = default;

void Poll::onReady(uv_poll_t *handle, int status, int) {
	Poll *poll = static_cast<Poll *>(handle->data);
	Napi::HandleScope scope(poll->env_);
	poll->ready_(status);
}

void callFromLoop(const Napi::FunctionReference &function, std::initializer_list<napi_value> arguments) {
	napi_env env = function.Env();
	napi_value self, callback, exception;
	if (napi_get_global(env, &self) != napi_ok || napi_get_reference_value(env, function, &callback) != napi_ok)
		return;
	const napi_status status =
		napi_make_callback(env, nullptr, self, callback, arguments.size(), arguments.begin(), nullptr);
	if (status == napi_pending_exception && napi_get_and_clear_last_exception(env, &exception) == napi_ok)
		napi_fatal_exception(env, exception);
}

void Poll::onClosed(uv_handle_t *handle) {
	Poll *poll = static_cast<Poll *>(handle->data);
	Napi::HandleScope scope(poll->env_);
	poll->ready_ = nullptr;
	if (poll->hook_)
		napi_remove_async_cleanup_hook(poll->hook_);
	poll->self_.reset();
}

void Poll::onCleanup(napi_async_cleanup_hook_handle, void *self) {
	static_cast<Poll *>(self)->close();
}

}  // namespace agentrm
