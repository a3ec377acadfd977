// SPDX-License-Identifier: Apache-2.0
#include "bpf_calls.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cerrno>

#include "agentrm.skel.h"
#include "clock.h"
#include "errors.h"

namespace agentrm {
namespace {

// A sampler that runs every millisecond and was not heard of for this long does not run.
constexpr uint64_t staleSampleNs = 100000000;

size_t pageAligned(size_t length) {
	const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
	return (length + page - 1) / page * page;
}

void mapOrThrow(Mapping *mapping, const struct bpf_map *map, size_t length, int protection) {
	if (!mapping->map(bpf_map__fd(map), pageAligned(length), protection))
		throw Failure{errno, "mmap", bpf_map__name(map), ""};
}

void update(int map, const void *key, const void *value, uint64_t flags) {
	if (bpf_map_update_elem(map, key, value, flags) != 0)
		throw Failure{errno, "bpf", "", ""};
}

}  // namespace

Calls::Calls(const BpfObject &object) {
	const auto &maps = object.skeleton()->maps;
	policies_ = bpf_map__fd(maps.policies);
	stats_ = bpf_map__fd(maps.stats);
	stops_ = bpf_map__fd(maps.stops);
	counters_ = bpf_map__fd(maps.counters);
	slotsFd_ = bpf_map__fd(maps.slots);
	sampled_ = bpf_map__fd(maps.sampled);
	mapOrThrow(&heartbeat_, maps.heartbeat, sizeof(uint64_t), PROT_READ | PROT_WRITE);
	mapOrThrow(&slots_, maps.slots, AGENTRM_SLOTS * sizeof(struct agentrm_slot), PROT_READ);
}

void Calls::setPolicy(uint64_t call, const struct agentrm_policy &policy) {
	const struct agentrm_stats none = {};
	// The programs take a call with statistics for managed, so these come first.
	if (bpf_map_update_elem(stats_, &call, &none, BPF_NOEXIST) != 0 && errno != EEXIST)
		throw Failure{errno, "bpf", "stats", ""};
	update(policies_, &call, &policy, BPF_ANY);
}

void Calls::forget(uint64_t call) {
	bpf_map_delete_elem(policies_, &call);
	bpf_map_delete_elem(stats_, &call);
	bpf_map_delete_elem(sampled_, &call);
	if (const struct agentrm_slot *slot = slotOf(call)) {
		const struct agentrm_slot none = {};
		const uint32_t index = static_cast<uint32_t>(slot - static_cast<const struct agentrm_slot *>(slots_.get()));
		update(slotsFd_, &index, &none, BPF_ANY);
	}
	clearStops(call);
}

bool Calls::stats(uint64_t call, struct agentrm_stats *stats) const {
	if (bpf_map_lookup_elem(stats_, &call, stats) == 0)
		return true;
	if (errno == ENOENT)
		return false;
	throw Failure{errno, "bpf", "stats", ""};
}

std::vector<Stop> Calls::stops(uint64_t call) const {
	std::vector<Stop> result;
	struct agentrm_stop_key key, next;
	const struct agentrm_stop_key *previous = nullptr;
	// An entry that vanishes meanwhile makes the kernel start over; entries seen twice do no harm, but an end is needed.
	for (uint32_t i = 0; i < 2 * AGENTRM_MAX_STOPS; i++) {
		if (bpf_map_get_next_key(stops_, previous, &next) != 0)
			break;
		key = next;
		previous = &key;
		Stop found = {key.tgid, {}};
		if (key.cgroup_id == call && bpf_map_lookup_elem(stops_, &key, &found.stop) == 0)
			result.push_back(found);
	}
	return result;
}

void Calls::clearStops(uint64_t call) {
	for (const Stop &found : stops(call)) {
		const struct agentrm_stop_key key = {call, found.tgid, 0};
		bpf_map_delete_elem(stops_, &key);
	}
}

void Calls::beat() {
	__atomic_store_n(static_cast<uint64_t *>(heartbeat_.get()), monotonicNs(), __ATOMIC_RELEASE);
}

const struct agentrm_slot *Calls::slotOf(uint64_t call) const {
	const auto *slots = static_cast<const struct agentrm_slot *>(slots_.get());
	for (uint32_t probe = 0; probe < AGENTRM_SLOT_PROBES; probe++) {
		const struct agentrm_slot *slot = &slots[agentrm_slot_of(call, probe)];
		if (__atomic_load_n(&slot->cgroup_id, __ATOMIC_ACQUIRE) == call)
			return slot;
	}
	return nullptr;
}

double Calls::usage(uint64_t call) const {
	const struct agentrm_slot *slot = slotOf(call);
	if (!slot)
		return -1;
	const uint64_t time = __atomic_load_n(&slot->time_ns, __ATOMIC_ACQUIRE);
	const uint64_t now = monotonicNs();
	if (time + staleSampleNs < now)
		return -1;
	return static_cast<double>(__atomic_load_n(&slot->usage_bytes, __ATOMIC_ACQUIRE));
}

struct agentrm_counters Calls::counters() const {
	struct agentrm_counters counters = {};
	const uint32_t zero = 0;
	if (bpf_map_lookup_elem(counters_, &zero, &counters) != 0)
		throw Failure{errno, "bpf", "counters", ""};
	return counters;
}

}  // namespace agentrm
