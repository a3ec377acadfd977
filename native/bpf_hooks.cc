// SPDX-License-Identifier: Apache-2.0
#include "bpf_hooks.h"

#include <bpf/btf.h>

#include "../bpf/abi.h"

namespace agentrm {

const std::vector<Hook> &enforcingHooks() {
	// The throttle sleep comes first, alone: measured on 6.12 (test/kernel/bpf-overshoot.ts), it stops one process
	// 217 KiB past the line and 16 with 62 KiB a task, where reclaim_high stops them with 217 and 9, and both together
	// one process with 213; a charge is 256 KiB.
	// It is reached once a sleep instead of 17 times, its argument is the penalty that the time budget counts, and
	// kprobes miss no call, while from 7.1 on fexit does.
	static const std::vector<Hook> hooks = {
		{"kprobe/schedule_timeout_killable", AGENTRM_HOOK_SLEEP},
		{"fexit/reclaim_high", AGENTRM_HOOK_RECLAIM},
		{"kretprobe/reclaim_high", AGENTRM_HOOK_RECLAIM},
		{"fentry/try_charge_memcg", AGENTRM_HOOK_CHARGE},
	};
	return hooks;
}

KernelTypes::KernelTypes() : btf_(btf__load_vmlinux_btf()) {}

KernelTypes::~KernelTypes() {
	btf__free(btf_);
}

bool KernelTypes::has(const std::string &section) const {
	if (!btf_)
		return false;
	const size_t slash = section.find('/');
	const std::string kind = section.substr(0, slash), name = section.substr(slash + 1);
	if (kind == "tp_btf")
		return btf__find_by_name_kind(btf_, ("btf_trace_" + name).c_str(), BTF_KIND_TYPEDEF) > 0;
	if (kind == "iter")
		return btf__find_by_name_kind(btf_, ("bpf_iter_" + name).c_str(), BTF_KIND_FUNC) > 0;
	return btf__find_by_name_kind(btf_, name.c_str(), BTF_KIND_FUNC) > 0;
}

HookSets defaultHooks(const KernelTypes &types) {
	HookSets sets;
	for (const Hook &hook : enforcingHooks())
		if (types.has(hook.name))
			sets.push_back({hook.name});
	return sets;
}

}  // namespace agentrm
