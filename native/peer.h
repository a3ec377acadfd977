// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace agentrm {

// Who is at the other end of a socket, descriptors sent to it, signals by pidfd.
void exportPeer(Napi::Env env, Napi::Object exports);

}  // namespace agentrm
