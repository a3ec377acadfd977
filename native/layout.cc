// SPDX-License-Identifier: Apache-2.0
#include "layout.h"

#include <cstddef>

#include "../bpf/abi.h"

namespace agentrm {
namespace {

struct Field {
	const char *name;
	size_t offset;
};

Napi::Object describe(Napi::Env env, size_t size, std::initializer_list<Field> fields) {
	Napi::Object offsets = Napi::Object::New(env);
	for (const Field &field : fields)
		offsets.Set(field.name, static_cast<double>(field.offset));
	Napi::Object result = Napi::Object::New(env);
	result.Set("size", static_cast<double>(size));
	result.Set("fields", offsets);
	return result;
}

#define FIELD(type, member) {#member, offsetof(struct type, member)}

Napi::Value abi(const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	Napi::Object structs = Napi::Object::New(env);
	structs.Set("agentrm_config",
		    describe(env, sizeof(struct agentrm_config),
			     {FIELD(agentrm_config, root_cgroup_id), FIELD(agentrm_config, root_level),
			      FIELD(agentrm_config, call_level), FIELD(agentrm_config, hz),
			      FIELD(agentrm_config, page_size), FIELD(agentrm_config, hooks),
			      FIELD(agentrm_config, sampling)}));
	structs.Set("agentrm_policy",
		    describe(env, sizeof(struct agentrm_policy),
			     {FIELD(agentrm_policy, freeze_line_bytes), FIELD(agentrm_policy, pool_line_bytes),
			      FIELD(agentrm_policy, budget_ms), FIELD(agentrm_policy, budget_events),
			      FIELD(agentrm_policy, window_ms), FIELD(agentrm_policy, flags),
			      FIELD(agentrm_policy, cycle), FIELD(agentrm_policy, unused)}));
	structs.Set("agentrm_stats",
		    describe(env, sizeof(struct agentrm_stats),
			     {FIELD(agentrm_stats, high_events), FIELD(agentrm_stats, failed_reclaims),
			      FIELD(agentrm_stats, refaults), FIELD(agentrm_stats, refaults_at_reclaim),
			      FIELD(agentrm_stats, throttled_ms), FIELD(agentrm_stats, stops),
			      FIELD(agentrm_stats, usage_at_stop_bytes), FIELD(agentrm_stats, first_stop_ns),
			      FIELD(agentrm_stats, forks), FIELD(agentrm_stats, execs), FIELD(agentrm_stats, exits),
			      FIELD(agentrm_stats, oom_kills), FIELD(agentrm_stats, window_start_ns),
			      FIELD(agentrm_stats, window_throttled_ms), FIELD(agentrm_stats, window_events),
			      FIELD(agentrm_stats, window_cycle), FIELD(agentrm_stats, stopped_cycle)}));
	structs.Set("agentrm_stop_key",
		    describe(env, sizeof(struct agentrm_stop_key),
			     {FIELD(agentrm_stop_key, cgroup_id), FIELD(agentrm_stop_key, tgid),
			      FIELD(agentrm_stop_key, unused)}));
	structs.Set("agentrm_stop", describe(env, sizeof(struct agentrm_stop),
					     {FIELD(agentrm_stop, time_ns), FIELD(agentrm_stop, by_bpf),
					      FIELD(agentrm_stop, unused)}));
	structs.Set("agentrm_event",
		    describe(env, sizeof(struct agentrm_event),
			     {FIELD(agentrm_event, cgroup_id), FIELD(agentrm_event, time_ns),
			      FIELD(agentrm_event, usage_bytes), FIELD(agentrm_event, kind),
			      FIELD(agentrm_event, pid), FIELD(agentrm_event, reason),
			      FIELD(agentrm_event, signalled), FIELD(agentrm_event, comm)}));
	structs.Set("agentrm_counters",
		    describe(env, sizeof(struct agentrm_counters),
			     {FIELD(agentrm_counters, events_dropped), FIELD(agentrm_counters, stops_unrecorded),
			      FIELD(agentrm_counters, send_signal_errors), FIELD(agentrm_counters, sampler_errors)}));
	structs.Set("agentrm_slot", describe(env, sizeof(struct agentrm_slot),
					     {FIELD(agentrm_slot, cgroup_id), FIELD(agentrm_slot, usage_bytes),
					      FIELD(agentrm_slot, time_ns)}));
	Napi::Object result = Napi::Object::New(env);
	result.Set("version", AGENTRM_ABI_VERSION);
	result.Set("structs", structs);
	return result;
}

}  // namespace

void exportAbi(Napi::Env env, Napi::Object exports) {
	exports.Set("abi", Napi::Function::New(env, abi, "abi"));
}

}  // namespace agentrm
