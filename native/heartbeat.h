// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace agentrm {

// The heartbeat file, read by the wrapper and the guard, and the clock it is written in.
void exportHeartbeat(Napi::Env env, Napi::Object exports);

}  // namespace agentrm
