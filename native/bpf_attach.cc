// SPDX-License-Identifier: Apache-2.0
#include "bpf_attach.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "errors.h"

namespace agentrm {
namespace {

// The number under which this kernel offers kprobes as performance events; -1 if it does not.
int kprobeEventType() {
	Fd file(open("/sys/bus/event_source/devices/kprobe/type", O_RDONLY | O_CLOEXEC));
	char text[16];
	const ssize_t length = file ? read(file.get(), text, sizeof(text) - 1) : -1;
	if (length <= 0)
		return -1;
	text[length] = '\0';
	return atoi(text);
}

Fd attachProbe(const struct bpf_program *program, const std::string &function, bool atReturn) {
	struct perf_event_attr attr = {};
	const int type = kprobeEventType();
	if (type < 0)
		throw Failure{ENOTSUP, "perf_event_open", function, "", "this kernel has no kprobes"};
	attr.type = static_cast<__u32>(type);
	attr.size = sizeof(attr);
	// format/retprobe is "config:0" wherever it exists.
	attr.config = atReturn ? 1 : 0;
	attr.kprobe_func = reinterpret_cast<uintptr_t>(function.c_str());
	// Which CPU does not matter: the probe fires on all.
	Fd event(static_cast<int>(syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)));
	if (!event)
		throw Failure{errno, "perf_event_open", function, ""};
	Fd link(bpf_link_create(bpf_program__fd(program), event.get(), BPF_PERF_EVENT, nullptr));
	if (!link)
		throw Failure{errno, "bpf_link_create", function, ""};
	// The link keeps the event.
	if (ioctl(event.get(), PERF_EVENT_IOC_ENABLE, 0) != 0)
		throw Failure{errno, "ioctl", function, ""};
	return link;
}

}  // namespace

Fd attachProgram(const struct bpf_program *program) {
	const std::string section = bpf_program__section_name(program);
	const std::string function = section.substr(section.find('/') + 1);
	if (bpf_program__type(program) == BPF_PROG_TYPE_KPROBE)
		return attachProbe(program, function, section.rfind("kretprobe/", 0) == 0);
	Fd link(bpf_link_create(bpf_program__fd(program), 0, bpf_program__expected_attach_type(program), nullptr));
	if (!link)
		throw Failure{errno, "bpf_link_create", section, ""};
	return link;
}

void runOverCgroups(const struct bpf_program *program, uint64_t rootCgroupId) {
	union bpf_iter_link_info target = {};
	target.cgroup.order = BPF_CGROUP_ITER_DESCENDANTS_PRE;
	target.cgroup.cgroup_id = rootCgroupId;
	LIBBPF_OPTS(bpf_link_create_opts, options);
	options.iter_info = &target;
	options.iter_info_len = sizeof(target);
	Fd link(bpf_link_create(bpf_program__fd(program), 0, BPF_TRACE_ITER, &options));
	if (!link)
		throw Failure{errno, "bpf_link_create", "iter/cgroup", ""};
	Fd walk(bpf_iter_create(link.get()));
	if (!walk)
		throw Failure{errno, "bpf_iter_create", "iter/cgroup", ""};
	char nothing[64];
	ssize_t length;
	do
		length = read(walk.get(), nothing, sizeof(nothing));
	while (length > 0 || (length < 0 && errno == EAGAIN));
	if (length < 0)
		throw Failure{errno, "read", "iter/cgroup", ""};
}

}  // namespace agentrm
