// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "fd.h"

struct agentrm_bpf;
struct bpf_program;

namespace agentrm {

struct LoadOptions {
	std::string object;
	std::string pinDir;
	uint64_t rootCgroupId = 0;
	uint32_t callLevel = 0;
	std::vector<std::string> hooks;  // empty: the default
};

struct ProgramInfo {
	std::string name;
	std::string type;
	bool attached;
	uint64_t verifiedInsns;
	uint64_t runCount;
	uint64_t recursionMisses;
};

// The loaded programs and their pinned maps and links. Constructed, everything is attached; destroyed, everything
// that is pinned goes on. All members throw Failure.
class BpfObject {
 public:
	explicit BpfObject(const LoadOptions &options);
	BpfObject(const BpfObject &) = delete;
	BpfObject &operator=(const BpfObject &) = delete;
	~BpfObject();

	const struct agentrm_bpf *skeleton() const { return skeleton_; }
	int eventsFd() const;
	bool adopted() const { return adopted_; }
	const std::vector<std::string> &hooks() const { return hooks_; }
	std::vector<ProgramInfo> programs() const;
	// Turns the sampler on and shows it the cgroups that exist.
	void startSampler();
	// Detaches and removes everything below the pin directory.
	void unpin();

 private:
	void start(const class KernelTypes &types);
	void open();
	void choosePrograms(const class KernelTypes &types);
	void load();
	void configure();
	void attach();
	void pinLink(const std::string &name, Fd link);
	void dropOldLinks();
	void removePins();

	const LoadOptions options_;
	struct agentrm_bpf *skeleton_ = nullptr;
	std::string image_;
	bool adopted_ = false;
	bool asked_ = false;
	std::vector<std::string> hooks_;
	std::map<std::string, Fd> links_;
};

}  // namespace agentrm
