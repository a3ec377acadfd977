// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <malloc.h>

namespace agentrm {
namespace {

Napi::Value trimMemory(const Napi::CallbackInfo &info) {
	bool trimmed = false;
#ifdef __GLIBC__
	trimmed = malloc_trim(0) == 1;
#endif
	return Napi::Boolean::New(info.Env(), trimmed);
}

}  // namespace

void exportMemory(Napi::Env env, Napi::Object exports) {
	exports.Set("trimMemory", Napi::Function::New(env, trimMemory, "trimMemory"));
}

}  // namespace agentrm
