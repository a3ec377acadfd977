// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <string>

namespace agentrm {

// What a failed system call says about itself besides its errno; empty strings are left out of the error object.
struct Failure {
	int err = 0;  // positive errno
	std::string syscall;
	std::string path;
	std::string value;
	std::string detail = {};  // shown at the end of the message only
};

// An Error as Node makes it: message "CODE: text, syscall 'path'", and code, errno, syscall, path, value.
Napi::Error systemError(Napi::Env env, const Failure &failure);

// TypeErrors with Node's codes ERR_INVALID_ARG_TYPE and ERR_INVALID_ARG_VALUE.
Napi::Error argType(Napi::Env env, const std::string &name, const char *expected);
Napi::Error argValue(Napi::Env env, const std::string &name, const std::string &why);

// What a descriptor, or a name in a directory, is called in messages: /proc knows. Leaves errno undefined.
std::string pathOf(int fd);
std::string pathAt(int dir, const std::string &name);

}  // namespace agentrm
