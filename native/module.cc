// SPDX-License-Identifier: Apache-2.0
#include <napi.h>

#include "bpf.h"
#include "cgroup.h"
#include "heartbeat.h"
#include "layout.h"
#include "memory.h"
#include "notify.h"
#include "peer.h"
#include "tcp_owner.h"
#include "watch.h"

static Napi::Object init(Napi::Env env, Napi::Object exports) {
	agentrm::exportPeer(env, exports);
	agentrm::exportTcpOwner(env, exports);
	agentrm::exportCgroup(env, exports);
	agentrm::exportWatch(env, exports);
	agentrm::exportHeartbeat(env, exports);
	agentrm::exportNotify(env, exports);
	agentrm::exportMemory(env, exports);
	agentrm::exportBpf(env, exports);
	agentrm::exportAbi(env, exports);
	return exports;
}

NODE_API_MODULE(agentrm, init)
