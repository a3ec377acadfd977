// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <memory>

#include "poll.h"

struct ring_buffer;
struct agentrm_event;

namespace agentrm {

// Events of the BPF programs, delivered to a JavaScript callback in batches.
class Ringbuf {
 public:
	// Throws Napi::Error. `mapFd` must stay open until close().
	static std::shared_ptr<Ringbuf> open(Napi::Env env, int mapFd, Napi::Function callback);
	~Ringbuf();
	void close();

 private:
	Ringbuf() = default;
	void deliver();
	static int onEvent(void *self, void *data, size_t size);

	struct ring_buffer *ring_ = nullptr;
	std::shared_ptr<Poll> poll_;
	Napi::FunctionReference callback_;
	napi_value batch_ = nullptr;
	uint32_t count_ = 0;
};

}  // namespace agentrm
