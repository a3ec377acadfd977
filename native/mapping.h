// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <utility>

namespace agentrm {

// Owns one memory mapping.
class Mapping {
 public:
	Mapping() = default;
	Mapping(const Mapping &) = delete;
	Mapping &operator=(const Mapping &) = delete;
	~Mapping() { reset(); }

	// False with errno set if it fails.
	bool map(int fd, size_t length, int protection) {
		reset();
		void *address = mmap(nullptr, length, protection, MAP_SHARED, fd, 0);
		if (address == MAP_FAILED)
			return false;
		address_ = address;
		length_ = length;
		return true;
	}
	void reset() {
		if (address_)
			munmap(std::exchange(address_, nullptr), length_);
	}
	void *get() const { return address_; }

 private:
	void *address_ = nullptr;
	size_t length_ = 0;
};

}  // namespace agentrm
