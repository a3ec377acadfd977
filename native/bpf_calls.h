// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "../bpf/abi.h"
#include "bpf_object.h"
#include "mapping.h"

namespace agentrm {

struct Stop {
	uint32_t tgid;
	struct agentrm_stop stop;
};

// What user space reads and writes about each call, in the maps of a loaded object. All members throw Failure.
class Calls {
 public:
	explicit Calls(const BpfObject &object);

	void setPolicy(uint64_t call, const struct agentrm_policy &policy);
	void forget(uint64_t call);
	// False if the call is unknown.
	bool stats(uint64_t call, struct agentrm_stats *stats) const;
	std::vector<Stop> stops(uint64_t call) const;
	void clearStops(uint64_t call);
	void beat();
	// Bytes, or -1.
	double usage(uint64_t call) const;
	struct agentrm_counters counters() const;

 private:
	const struct agentrm_slot *slotOf(uint64_t call) const;

	int policies_, stats_, stops_, counters_, slotsFd_, sampled_;
	Mapping heartbeat_;
	Mapping slots_;
};

}  // namespace agentrm
