// SPDX-License-Identifier: Apache-2.0
#include "errors.h"

#include <unistd.h>
#include <uv.h>

#include <climits>

namespace agentrm {

Napi::Error systemError(Napi::Env env, const Failure &failure) {
	// libuv's numbers on Linux are negated errnos, and its names and texts are the ones that Node shows.
	const int number = -failure.err;
	const std::string code = uv_err_name(number);
	std::string message = code + ": " + uv_strerror(number) + ", " + failure.syscall;
	if (!failure.path.empty())
		message += " '" + failure.path + "'";
	if (!failure.value.empty())
		message += " <- '" + failure.value + "'";
	if (!failure.detail.empty())
		message += ": " + failure.detail;

	Napi::Error error = Napi::Error::New(env, message);
	Napi::Object object = error.Value();
	object.Set("errno", Napi::Number::New(env, number));
	object.Set("code", Napi::String::New(env, code));
	object.Set("syscall", Napi::String::New(env, failure.syscall));
	if (!failure.path.empty())
		object.Set("path", Napi::String::New(env, failure.path));
	if (!failure.value.empty())
		object.Set("value", Napi::String::New(env, failure.value));
	return error;
}

static Napi::Error typeError(Napi::Env env, const char *code, const std::string &message) {
	Napi::Error error = Napi::TypeError::New(env, message);
	error.Value().Set("code", Napi::String::New(env, code));
	return error;
}

Napi::Error argType(Napi::Env env, const std::string &name, const char *expected) {
	return typeError(env, "ERR_INVALID_ARG_TYPE", "The \"" + name + "\" argument must be " + expected);
}

Napi::Error argValue(Napi::Env env, const std::string &name, const std::string &why) {
	return typeError(env, "ERR_INVALID_ARG_VALUE", "The argument '" + name + "' " + why);
}

std::string pathOf(int fd) {
	char target[PATH_MAX];
	const std::string link = "/proc/self/fd/" + std::to_string(fd);
	const ssize_t length = readlink(link.c_str(), target, sizeof(target));
	return length < 0 ? link : std::string(target, static_cast<size_t>(length));
}

std::string pathAt(int dir, const std::string &name) {
	return pathOf(dir) + "/" + name;
}

}  // namespace agentrm
