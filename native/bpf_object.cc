// SPDX-License-Identifier: Apache-2.0
#include "bpf_object.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <ctime>

#include "../bpf/abi.h"
#include "agentrm.skel.h"
#include "bpf_attach.h"
#include "bpf_hooks.h"
#include "errors.h"

namespace agentrm {
namespace {

// What libbpf last complained about on this thread, for the message of the error that follows.
thread_local std::string complaints;
constexpr size_t complaintsLimit = 4096;

int collect(enum libbpf_print_level level, const char *format, va_list arguments) {
	char line[1024];
	if (level != LIBBPF_WARN)
		return 0;
	vsnprintf(line, sizeof(line), format, arguments);
	complaints += line;
	// The end of a verifier's log is where the reason stands.
	if (complaints.size() > complaintsLimit)
		complaints.erase(0, complaints.size() - complaintsLimit);
	return 0;
}

std::string readFile(const std::string &path) {
	Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
	if (!file)
		throw Failure{errno, "open", path, ""};
	std::string content;
	char part[65536];
	ssize_t length;
	while ((length = read(file.get(), part, sizeof(part))) > 0)
		content.append(part, static_cast<size_t>(length));
	if (length < 0)
		throw Failure{errno, "read", path, ""};
	return content;
}

void makeDirectory(const std::string &path) {
	if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
		throw Failure{errno, "mkdir", path, ""};
}

std::vector<std::string> listDirectory(const std::string &path) {
	std::vector<std::string> names;
	DIR *directory = opendir(path.c_str());
	if (!directory)
		return names;
	while (const struct dirent *entry = readdir(directory))
		if (entry->d_name[0] != '.')
			names.push_back(entry->d_name);
	closedir(directory);
	return names;
}

// CONFIG_HZ: the coarse clock advances once a tick.
uint32_t ticksPerSecond() {
	struct timespec tick;
	clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
	return static_cast<uint32_t>((1000000000 + tick.tv_nsec / 2) / tick.tv_nsec);
}

bool contains(const std::vector<std::string> &list, const std::string &item) {
	return std::find(list.begin(), list.end(), item) != list.end();
}

bool isEnforcing(const std::string &section) {
	const auto &hooks = enforcingHooks();
	return std::any_of(hooks.begin(), hooks.end(), [&](const Hook &hook) { return section == hook.name; });
}

}  // namespace

BpfObject::BpfObject(const LoadOptions &options) : options_(options) {
	libbpf_set_print(collect);
	const KernelTypes types;
	if (!types.available())
		throw Failure{ENOENT, "open", "/sys/kernel/btf/vmlinux", ""};
	const auto candidates = options_.hooks.empty() ? defaultHooks(types) : HookSets{options_.hooks};
	if (candidates.empty())
		throw Failure{ENOTSUP, "bpf", "", "", "this kernel has none of the enforcing hooks"};
	for (const auto &hooks : candidates)
		for (const std::string &hook : hooks)
			if (!isEnforcing(hook) || !types.has(hook))
				throw Failure{ENOTSUP, "bpf", "", hook, "no such hook here"};
	// That a function exists does not say that it can be attached to.
	for (size_t i = 0; i < candidates.size(); i++) {
		hooks_ = candidates[i];
		try {
			start(types);
			return;
		} catch (...) {
			agentrm_bpf__destroy(skeleton_);
			skeleton_ = nullptr;
			if (i + 1 == candidates.size()) {
				// What an earlier process pinned stays: it does nothing without a heartbeat.
				if (!adopted_)
					removePins();
				throw;
			}
		}
	}
}

void BpfObject::start(const KernelTypes &types) {
	complaints.clear();
	links_.clear();
	open();
	choosePrograms(types);
	load();
	configure();
	attach();
	dropOldLinks();
}

BpfObject::~BpfObject() {
	agentrm_bpf__destroy(skeleton_);
}

int BpfObject::eventsFd() const {
	return bpf_map__fd(skeleton_->maps.events);
}

// The skeleton gives names to maps and programs, checked when this is compiled; the code comes from the file.
void BpfObject::open() {
	image_ = readFile(options_.object);
	skeleton_ = static_cast<struct agentrm_bpf *>(calloc(1, sizeof(*skeleton_)));
	if (!skeleton_ || agentrm_bpf__create_skeleton(skeleton_) != 0)
		throw Failure{ENOMEM, "calloc", "", ""};
	skeleton_->skeleton->data = image_.data();
	skeleton_->skeleton->data_sz = image_.size();
	if (const int err = bpf_object__open_skeleton(skeleton_->skeleton, nullptr))
		throw Failure{-err, "bpf", options_.object, "", complaints};
}

void BpfObject::choosePrograms(const KernelTypes &types) {
	struct bpf_program *program;
	bpf_object__for_each_program(program, skeleton_->obj) {
		const std::string section = bpf_program__section_name(program);
		// Observers are attached wherever the kernel has the place, enforcing programs if they were chosen.
		const bool wanted = isEnforcing(section) ? contains(hooks_, section) : types.has(section);
		bpf_program__set_autoload(program, wanted);
	}
	// Also counts reclaims when it does not enforce.
	if (!contains(hooks_, "kretprobe/reclaim_high"))
		bpf_program__set_autoload(skeleton_->progs.on_reclaimed, types.has("fexit/reclaim_high"));
}

void BpfObject::load() {
	const std::string maps = options_.pinDir + "/maps";
	makeDirectory(options_.pinDir);
	makeDirectory(maps);
	makeDirectory(options_.pinDir + "/links");
	// Asked once: a second attempt finds what the first one pinned.
	if (!asked_)
		adopted_ = access((maps + "/policies").c_str(), F_OK) == 0;
	asked_ = true;
	// A map with a path is taken from there if it exists, else made and pinned.
	struct bpf_map *map;
	bpf_object__for_each_map(map, skeleton_->obj) {
		// Constants belong to the code, which is always this process's own.
		if (bpf_map__is_internal(map))
			continue;
		const std::string path = maps + "/" + bpf_map__name(map);
		if (const int err = bpf_map__set_pin_path(map, path.c_str()))
			throw Failure{-err, "bpf", path, ""};
	}
	if (const int err = bpf_object__load_skeleton(skeleton_->skeleton))
		throw Failure{-err, "bpf", options_.pinDir, "", complaints};
}

void BpfObject::configure() {
	struct agentrm_config config = {};
	const int fd = bpf_map__fd(skeleton_->maps.config);
	const uint32_t zero = 0;
	// Sampling stays as an earlier process left it.
	bpf_map_lookup_elem(fd, &zero, &config);
	config.root_cgroup_id = options_.rootCgroupId;
	config.root_level = options_.callLevel - 2;
	config.call_level = options_.callLevel;
	config.hz = ticksPerSecond();
	config.page_size = static_cast<uint32_t>(sysconf(_SC_PAGESIZE));
	config.hooks = 0;
	for (const Hook &hook : enforcingHooks())
		if (contains(hooks_, hook.name))
			config.hooks |= hook.bit;
	if (bpf_map_update_elem(fd, &zero, &config, BPF_ANY) != 0)
		throw Failure{errno, "bpf", "config", ""};
}

void BpfObject::attach() {
	struct bpf_program *program;
	bpf_object__for_each_program(program, skeleton_->obj) {
		if (!bpf_program__autoload(program) || program == skeleton_->progs.on_existing)
			continue;
		try {
			pinLink(bpf_program__name(program), attachProgram(program));
		} catch (const Failure &) {
			// An observer that is missing shows in programs(); without its enforcing hooks nothing is enforced.
			if (contains(hooks_, bpf_program__section_name(program)))
				throw;
		}
	}
}

// The rename drops the link of an earlier process in the moment in which the new one is there already.
void BpfObject::pinLink(const std::string &name, Fd link) {
	const std::string path = options_.pinDir + "/links/" + name;
	// A dot would not do: the BPF file system keeps such names for itself.
	const std::string fresh = path + "-new";
	unlink(fresh.c_str());
	if (bpf_obj_pin(link.get(), fresh.c_str()) != 0)
		throw Failure{errno, "bpf", fresh, ""};
	if (rename(fresh.c_str(), path.c_str()) != 0)
		throw Failure{errno, "rename", path, ""};
	links_[name] = std::move(link);
}

// Those of hooks that an earlier process had chosen and this one has not.
void BpfObject::dropOldLinks() {
	const std::string directory = options_.pinDir + "/links";
	for (const std::string &name : listDirectory(directory))
		if (links_.count(name) == 0)
			unlink((directory + "/" + name).c_str());
}

std::vector<ProgramInfo> BpfObject::programs() const {
	std::vector<ProgramInfo> result;
	struct bpf_program *program;
	bpf_object__for_each_program(program, skeleton_->obj) {
		struct bpf_prog_info info = {};
		uint32_t length = sizeof(info);
		const int fd = bpf_program__fd(program);
		if (fd < 0)
			continue;
		if (bpf_obj_get_info_by_fd(fd, &info, &length) != 0)
			throw Failure{errno, "bpf", bpf_program__name(program), ""};
		result.push_back({bpf_program__name(program), bpf_program__section_name(program),
				  links_.count(bpf_program__name(program)) != 0, info.verified_insns, info.run_cnt,
				  info.recursion_misses});
	}
	return result;
}

void BpfObject::startSampler() {
	struct agentrm_config config;
	const int fd = bpf_map__fd(skeleton_->maps.config);
	const uint32_t zero = 0;
	if (bpf_map_lookup_elem(fd, &zero, &config) != 0)
		throw Failure{errno, "bpf", "config", ""};
	// First on, then the walk: a cgroup made between the two is seen twice, not missed.
	config.sampling = 1;
	if (bpf_map_update_elem(fd, &zero, &config, BPF_ANY) != 0)
		throw Failure{errno, "bpf", "config", ""};
	if (bpf_program__autoload(skeleton_->progs.on_existing))
		runOverCgroups(skeleton_->progs.on_existing, options_.rootCgroupId);
}

void BpfObject::removePins() {
	for (const char *kind : {"/links", "/maps"}) {
		const std::string directory = options_.pinDir + kind;
		for (const std::string &name : listDirectory(directory))
			unlink((directory + "/" + name).c_str());
		rmdir(directory.c_str());
	}
	rmdir(options_.pinDir.c_str());
}

void BpfObject::unpin() {
	links_.clear();
	removePins();
	if (access(options_.pinDir.c_str(), F_OK) == 0)
		throw Failure{ENOTEMPTY, "rmdir", options_.pinDir, ""};
}

}  // namespace agentrm
