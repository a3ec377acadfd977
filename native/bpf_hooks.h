// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct btf;

namespace agentrm {

// An enforcing hook: its public name is the section of its program.
struct Hook {
	const char *name;
	uint32_t bit;  // AGENTRM_HOOK_*
};

// Best first.
const std::vector<Hook> &enforcingHooks();

// What the running kernel offers, from its BTF.
class KernelTypes {
 public:
	KernelTypes();
	~KernelTypes();
	bool available() const { return btf_ != nullptr; }
	// Whether the thing that a program section names ("fentry/f", "kprobe/f", "tp_btf/t", "iter/cgroup") exists.
	bool has(const std::string &section) const;

 private:
	struct btf *btf_;
};

using HookSets = std::vector<std::vector<std::string>>;

// The sets of hooks to try by default, best first, as far as this kernel has them.
HookSets defaultHooks(const KernelTypes &types);

}  // namespace agentrm
