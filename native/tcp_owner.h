// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace agentrm {

// Whose a TCP connection on this host is.
void exportTcpOwner(Napi::Env env, Napi::Object exports);

}  // namespace agentrm
