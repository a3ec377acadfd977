// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace agentrm {

// File calls relative to a directory descriptor, so that a cgroup that was removed and made anew under the same name
// is never mistaken for the old one.
void exportCgroup(Napi::Env env, Napi::Object exports);

}  // namespace agentrm
