// SPDX-License-Identifier: Apache-2.0
#include "bpf.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "args.h"
#include "bpf_calls.h"
#include "bpf_hooks.h"
#include "bpf_object.h"
#include "errors.h"
#include "fd.h"
#include "ringbuf.h"

namespace agentrm {
namespace {

// What the JavaScript object stands for; empty after close().
struct Session {
	std::unique_ptr<BpfObject> object;
	std::unique_ptr<Calls> calls;
	std::shared_ptr<Ringbuf> ringbuf;

	void close() {
		if (ringbuf)
			ringbuf->close();
		ringbuf.reset();
		calls.reset();
		object.reset();
	}
};

using Shared = std::shared_ptr<Session>;

uint32_t uint32Property(const Napi::Object &object, const char *name) {
	const uint64_t value = uintArg(object.Get(name), name);
	if (value > std::numeric_limits<uint32_t>::max())
		throw argValue(object.Env(), name, "must be below 2^32");
	return static_cast<uint32_t>(value);
}

Napi::Value number(Napi::Env env, uint64_t value) {
	return Napi::Number::New(env, static_cast<double>(value));
}

struct agentrm_policy policyArg(const Napi::Value &value) {
	if (!value.IsObject())
		throw argType(value.Env(), "policy", "an object");
	const Napi::Object object = value.As<Napi::Object>();
	struct agentrm_policy policy = {};
	policy.freeze_line_bytes = uintArg(object.Get("freezeLineBytes"), "freezeLineBytes");
	policy.pool_line_bytes = uintArg(object.Get("poolLineBytes"), "poolLineBytes");
	policy.budget_ms = uint32Property(object, "budgetMs");
	policy.budget_events = uint32Property(object, "budgetEvents");
	policy.window_ms = uint32Property(object, "windowMs");
	policy.flags = uint32Property(object, "flags");
	policy.cycle = uint32Property(object, "cycle");
	return policy;
}

void setPolicy(Session &session, const Napi::CallbackInfo &info) {
	session.calls->setPolicy(uintArg(info[0], "cgroupId"), policyArg(info[1]));
}

void deletePolicy(Session &session, const Napi::CallbackInfo &info) {
	session.calls->forget(uintArg(info[0], "cgroupId"));
}

Napi::Value stats(Session &session, const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	struct agentrm_stats stats;
	if (!session.calls->stats(uintArg(info[0], "cgroupId"), &stats))
		return env.Null();
	Napi::Object result = Napi::Object::New(env);
	result.Set("highEvents", number(env, stats.high_events));
	result.Set("failedReclaims", number(env, stats.failed_reclaims));
	result.Set("refaults", number(env, stats.refaults));
	result.Set("throttledMs", number(env, stats.throttled_ms));
	result.Set("stops", number(env, stats.stops));
	result.Set("usageAtStopBytes", number(env, stats.usage_at_stop_bytes));
	result.Set("firstStopNs", Napi::BigInt::New(env, static_cast<uint64_t>(stats.first_stop_ns)));
	result.Set("forks", number(env, stats.forks));
	result.Set("execs", number(env, stats.execs));
	result.Set("exits", number(env, stats.exits));
	result.Set("oomKills", number(env, stats.oom_kills));
	return result;
}

Napi::Value stops(Session &session, const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	Napi::Array result = Napi::Array::New(env);
	for (const Stop &found : session.calls->stops(uintArg(info[0], "cgroupId"))) {
		Napi::Object stop = Napi::Object::New(env);
		stop.Set("tgid", number(env, found.tgid));
		stop.Set("timeNs", Napi::BigInt::New(env, static_cast<uint64_t>(found.stop.time_ns)));
		stop.Set("byBpf", Napi::Boolean::New(env, found.stop.by_bpf != 0));
		result.Set(result.Length(), stop);
	}
	return result;
}

void clearStops(Session &session, const Napi::CallbackInfo &info) {
	session.calls->clearStops(uintArg(info[0], "cgroupId"));
}

void samplerStart(Session &session, const Napi::CallbackInfo &) {
	session.object->startSampler();
}

Napi::Value usage(Session &session, const Napi::CallbackInfo &info) {
	return Napi::Number::New(info.Env(), session.calls->usage(uintArg(info[0], "cgroupId")));
}

Napi::Value counters(Session &session, const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	const struct agentrm_counters counters = session.calls->counters();
	uint64_t misses = 0;
	for (const ProgramInfo &program : session.object->programs())
		misses += program.recursionMisses;
	Napi::Object result = Napi::Object::New(env);
	result.Set("eventsDropped", number(env, counters.events_dropped));
	result.Set("recursionMisses", number(env, misses));
	result.Set("sendSignalErrors", number(env, counters.send_signal_errors));
	result.Set("stopsUnrecorded", number(env, counters.stops_unrecorded));
	result.Set("samplerErrors", number(env, counters.sampler_errors));
	return result;
}

Napi::Value programs(Session &session, const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	Napi::Array result = Napi::Array::New(env);
	for (const ProgramInfo &program : session.object->programs()) {
		Napi::Object entry = Napi::Object::New(env);
		entry.Set("name", program.name);
		entry.Set("type", program.type);
		entry.Set("attached", program.attached);
		entry.Set("verifiedInsns", number(env, program.verifiedInsns));
		entry.Set("runCount", number(env, program.runCount));
		result.Set(result.Length(), entry);
	}
	return result;
}

void unpin(Session &session, const Napi::CallbackInfo &) {
	session.object->unpin();
}

Napi::Value run(Napi::Value (*method)(Session &, const Napi::CallbackInfo &), Session &session,
		const Napi::CallbackInfo &info) {
	return method(session, info);
}

Napi::Value run(void (*method)(Session &, const Napi::CallbackInfo &), Session &session,
		const Napi::CallbackInfo &info) {
	method(session, info);
	return info.Env().Undefined();
}

// Adds a method that needs the session to be open, and turns what it throws into an Error.
template <typename Method>
void addMethod(Napi::Object object, const Shared &session, const char *name, Method method) {
	const auto call = [session, method](const Napi::CallbackInfo &info) -> Napi::Value {
		if (!session->object)
			throw systemError(info.Env(), {EBADF, "bpf", "", "", "closed"});
		try {
			return run(method, *session, info);
		} catch (const Failure &failure) {
			throw systemError(info.Env(), failure);
		}
	};
	object.Set(name, Napi::Function::New(object.Env(), call, name));
}

LoadOptions loadOptions(const Napi::Object &object) {
	LoadOptions options;
	options.object = stringArg(object.Get("object"), "object");
	options.pinDir = stringArg(object.Get("pinDir"), "pinDir");
	options.rootCgroupId = uintArg(object.Get("rootCgroupId"), "rootCgroupId");
	options.callLevel = uint32Property(object, "callLevel");
	// Two levels below the root; the programs look no deeper than 31.
	if (options.callLevel < 2 || options.callLevel > 31)
		throw argValue(object.Env(), "callLevel", "must be from 2 to 31");
	if (object.Get("hooks").IsUndefined())
		return options;
	if (!object.Get("hooks").IsArray())
		throw argType(object.Env(), "hooks", "an array");
	const Napi::Array hooks = object.Get("hooks").As<Napi::Array>();
	for (uint32_t i = 0; i < hooks.Length(); i++)
		options.hooks.push_back(stringArg(hooks.Get(i), "hooks"));
	return options;
}

Napi::Value openBpf(const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	if (!info[0].IsObject())
		throw argType(env, "options", "an object");
	const Napi::Object given = info[0].As<Napi::Object>();
	const LoadOptions options = loadOptions(given);
	const Napi::Function events = functionArg(given.Get("events"), "events");

	auto session = std::make_shared<Session>();
	try {
		session->object = std::make_unique<BpfObject>(options);
		session->calls = std::make_unique<Calls>(*session->object);
	} catch (const Failure &failure) {
		throw systemError(env, failure);
	}
	session->ringbuf = Ringbuf::open(env, session->object->eventsFd(), events);

	Napi::Array hooks = Napi::Array::New(env);
	for (const std::string &hook : session->object->hooks())
		hooks.Set(hooks.Length(), hook);
	Napi::Object bpf = Napi::Object::New(env);
	bpf.Set("adopted", session->object->adopted());
	bpf.Set("hooks", hooks);
	addMethod(bpf, session, "setPolicy", setPolicy);
	addMethod(bpf, session, "deletePolicy", deletePolicy);
	addMethod(bpf, session, "stats", stats);
	addMethod(bpf, session, "stops", stops);
	addMethod(bpf, session, "clearStops", clearStops);
	addMethod(bpf, session, "samplerStart", samplerStart);
	addMethod(bpf, session, "usage", usage);
	addMethod(bpf, session, "counters", counters);
	addMethod(bpf, session, "programs", programs);
	addMethod(bpf, session, "unpin", unpin);
	const auto beat = [session](const Napi::CallbackInfo &) {
		if (session->calls)
			session->calls->beat();
	};
	const auto close = [session](const Napi::CallbackInfo &) { session->close(); };
	bpf.Set("beat", Napi::Function::New(env, beat, "beat"));
	bpf.Set("close", Napi::Function::New(env, close, "close"));
	return bpf;
}

// Whether this process may use BPF at all; a map is the cheapest thing to ask for. Empty if it may.
std::string refusal(Napi::Env env) {
	Fd map(bpf_map_create(BPF_MAP_TYPE_ARRAY, "agentrm_probe", sizeof(uint32_t), sizeof(uint32_t), 1, nullptr));
	return map ? "" : systemError(env, {errno, "bpf", "", ""}).Message();
}

Napi::Value probeBpf(const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	const KernelTypes types;
	Napi::Object hooks = Napi::Object::New(env);
	for (const Hook &hook : enforcingHooks())
		hooks.Set(hook.name, types.has(hook.name));
	Napi::Object probe = Napi::Object::New(env);
	probe.Set("btf", types.available());
	probe.Set("hooks", hooks);
	std::string reason = refusal(env);
	if (reason.empty() && !types.available())
		reason = "the kernel has no BTF (/sys/kernel/btf/vmlinux)";
	if (reason.empty() && defaultHooks(types).empty())
		reason = "the kernel has none of the enforcing hooks";
	if (!reason.empty())
		probe.Set("reason", reason);
	return probe;
}

}  // namespace

void exportBpf(Napi::Env env, Napi::Object exports) {
	exports.Set("probeBpf", Napi::Function::New(env, probeBpf, "probeBpf"));
	exports.Set("openBpf", Napi::Function::New(env, openBpf, "openBpf"));
}

}  // namespace agentrm
