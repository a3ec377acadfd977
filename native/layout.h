// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace agentrm {

// The layouts of bpf/abi.h as this compiler made them.
void exportAbi(Napi::Env env, Napi::Object exports);

}  // namespace agentrm
