// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace agentrm {

// malloc_trim(3), where the C library has it.
void exportMemory(Napi::Env env, Napi::Object exports);

}  // namespace agentrm
