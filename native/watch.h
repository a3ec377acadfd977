// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace agentrm {

// Descriptors on the event loop: pidfds, sockets, cgroup event files, pressure triggers.
void exportWatch(Napi::Env env, Napi::Object exports);

}  // namespace agentrm
