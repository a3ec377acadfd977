// SPDX-License-Identifier: Apache-2.0
#include "ringbuf.h"

#include <bpf/libbpf.h>

#include <cerrno>
#include <cstring>

#include "../bpf/abi.h"
#include "errors.h"

namespace agentrm {
namespace {

// One turn of the loop must not starve the daemon's heartbeat: 256 events take well under a millisecond to hand over,
// and what is left keeps the descriptor readable.
constexpr uint32_t batchLimit = 256;

const char *kindName(uint32_t kind) {
	switch (kind) {
	case AGENTRM_EVENT_STOP: return "stop";
	case AGENTRM_EVENT_OOM: return "oom";
	case AGENTRM_EVENT_EMPTIED: return "emptied";
	}
	return nullptr;
}

const char *reasonName(uint32_t reason) {
	switch (reason) {
	case AGENTRM_REASON_LINE: return "line";
	case AGENTRM_REASON_BUDGET_TIME: return "budget-time";
	case AGENTRM_REASON_BUDGET_EVENTS: return "budget-events";
	case AGENTRM_REASON_POOL: return "pool";
	}
	return "";
}

// Plain Node-API: while a worker is being terminated every call fails, and the event is then for nobody.
napi_value toObject(napi_env env, const struct agentrm_event &event) {
	const char *kind = kindName(event.kind);
	napi_value object, value;
	if (!kind || napi_create_object(env, &object) != napi_ok)
		return nullptr;
	const auto set = [&](const char *name, napi_status status) {
		if (status == napi_ok)
			napi_set_named_property(env, object, name, value);
	};
	set("kind", napi_create_string_utf8(env, kind, NAPI_AUTO_LENGTH, &value));
	set("cgroupId", napi_create_double(env, static_cast<double>(event.cgroup_id), &value));
	set("pid", napi_create_uint32(env, event.pid, &value));
	set("comm", napi_create_string_utf8(env, event.comm, strnlen(event.comm, sizeof(event.comm)), &value));
	set("usageBytes", napi_create_double(env, static_cast<double>(event.usage_bytes), &value));
	set("reason", napi_create_string_utf8(env, reasonName(event.reason), NAPI_AUTO_LENGTH, &value));
	set("signalled", napi_get_boolean(env, event.signalled != 0, &value));
	set("timeNs", napi_create_bigint_uint64(env, event.time_ns, &value));
	return object;
}

}  // namespace

std::shared_ptr<Ringbuf> Ringbuf::open(Napi::Env env, int mapFd, Napi::Function callback) {
	std::shared_ptr<Ringbuf> self(new Ringbuf());
	self->ring_ = ring_buffer__new(mapFd, onEvent, self.get(), nullptr);
	if (!self->ring_)
		throw systemError(env, {errno, "ring_buffer__new", "", ""});
	self->callback_ = Napi::Persistent(callback);
	// The poll keeps the ring until it is closed, as a watch keeps its callback.
	self->poll_ = Poll::start(env, mapFd, UV_READABLE, [self](int) { self->deliver(); });
	return self;
}

Ringbuf::~Ringbuf() {
	ring_buffer__free(ring_);
}

void Ringbuf::close() {
	if (poll_)
		poll_->close();
	poll_.reset();
	ring_buffer__free(ring_);
	ring_ = nullptr;
}

void Ringbuf::deliver() {
	if (!ring_ || napi_create_array(callback_.Env(), &batch_) != napi_ok)
		return;
	count_ = 0;
	ring_buffer__consume(ring_);
	if (count_ > 0)
		callFromLoop(callback_, {batch_});
}

int Ringbuf::onEvent(void *data, void *record, size_t size) {
	Ringbuf *self = static_cast<Ringbuf *>(data);
	if (size < sizeof(struct agentrm_event))
		return 0;
	napi_env env = self->callback_.Env();
	napi_value object = toObject(env, *static_cast<const struct agentrm_event *>(record));
	if (object && napi_set_element(env, self->batch_, self->count_, object) == napi_ok)
		self->count_++;
	// A negative answer ends the round after this event.
	return self->count_ < batchLimit ? 0 : -ECANCELED;
}

}  // namespace agentrm
