// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace agentrm {

// probeBpf and openBpf.
void exportBpf(Napi::Env env, Napi::Object exports);

}  // namespace agentrm
