// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>

namespace agentrm {

// Checked reading of JavaScript arguments: a wrong one throws a TypeError instead of becoming a 0 or an empty string.

// A whole number from 0 to 2^31-1: descriptors, pids, signals.
int intArg(const Napi::Value &value, const char *name);
// A whole number from 0 to 2^53-1: cgroup ids, bytes, milliseconds.
uint64_t uintArg(const Napi::Value &value, const char *name);
// A string without NUL bytes.
std::string stringArg(const Napi::Value &value, const char *name);
// A string that is one path component: not empty, not "." or "..", no slash.
std::string nameArg(const Napi::Value &value, const char *name);
Napi::Function functionArg(const Napi::Value &value, const char *name);

}  // namespace agentrm
