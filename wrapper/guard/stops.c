// SPDX-License-Identifier: Apache-2.0
#include "stops.h"

#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../bpf/abi.h"

#define MAP_NAME "maps/stops"

_Static_assert(STOPS_MAX == AGENTRM_MAX_STOPS, "room for every entry of the map");

static long bpf(enum bpf_cmd cmd, union bpf_attr *attr)
{
	return syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

static int open_map(const char *pins)
{
	union bpf_attr attr = { 0 };
	char path[4096];

	if (snprintf(path, sizeof(path), "%s/" MAP_NAME, pins) >= (int)sizeof(path))
		return -1;
	attr.pathname = (uintptr_t)path;
	attr.file_flags = BPF_F_RDONLY;
	return (int)bpf(BPF_OBJ_GET, &attr);
}

static bool is_of_our_abi(int map)
{
	struct bpf_map_info info = { 0 };
	union bpf_attr attr = { 0 };

	attr.info.bpf_fd = (uint32_t)map;
	attr.info.info_len = sizeof(info);
	attr.info.info = (uintptr_t)&info;
	return bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) == 0 && info.key_size == sizeof(struct agentrm_stop_key) &&
	       info.value_size == sizeof(struct agentrm_stop);
}

void stops_read(struct stops *stops, const char *pins)
{
	struct agentrm_stop_key key, next;
	union bpf_attr attr = { 0 };
	int map = open_map(pins);

	stops->count = 0;
	if (map < 0)
		return;
	if (!is_of_our_abi(map)) {
		fprintf(stderr, "agentrm-guard: not of ABI %d: %s/" MAP_NAME "\n", AGENTRM_ABI_VERSION, pins);
		close(map);
		return;
	}
	attr.map_fd = (uint32_t)map;
	attr.next_key = (uintptr_t)&next;
	/* A key deleted under us starts the walk anew; the bound ends it, and the next pass goes on. */
	while (stops->count < STOPS_MAX && bpf(BPF_MAP_GET_NEXT_KEY, &attr) == 0) {
		stops->tgids[stops->count++] = (int)next.tgid;
		key = next;
		attr.key = (uintptr_t)&key;
	}
	close(map);
}

bool stops_contain(const struct stops *stops, int tgid)
{
	for (int i = 0; i < stops->count; i++)
		if (stops->tgids[i] == tgid)
			return true;
	return false;
}
