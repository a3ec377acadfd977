// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace agentrm {

// sd_notify(3) without libsystemd.
void exportNotify(Napi::Env env, Napi::Object exports);

}  // namespace agentrm
