// SPDX-License-Identifier: Apache-2.0
#include "cgroup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "args.h"
#include "errors.h"
#include "fd.h"

namespace agentrm {
namespace {

constexpr int directoryFlags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
// Cgroup files are short; cgroup.procs of a call with 100,000 processes is about 700 KiB.
constexpr size_t readLimit = 1 << 20;
// What Linux allows for the value of an extended attribute (XATTR_SIZE_MAX).
constexpr size_t xattrLimit = 65536;

Fd openAtOrThrow(Napi::Env env, int dir, const std::string &name, int flags) {
	Fd file(openat(dir, name.c_str(), flags | O_CLOEXEC | O_NOFOLLOW));
	if (!file)
		throw systemError(env, {errno, "openat", pathAt(dir, name), ""});
	return file;
}

ino_t inodeOf(Napi::Env env, int fd) {
	struct stat st;
	if (fstat(fd, &st) != 0)
		throw systemError(env, {errno, "fstat", "", ""});
	return st.st_ino;
}

// A kernel file takes a value in one write or not at all: a short write is a failure. Returns a positive errno or 0.
int writeWhole(int fd, const std::string &value) {
	const ssize_t written = write(fd, value.data(), value.size());
	if (written < 0)
		return errno;
	return static_cast<size_t>(written) == value.size() ? 0 : EIO;
}

Napi::Value openDir(const Napi::CallbackInfo &info) {
	const std::string path = stringArg(info[0], "path");
	const int fd = open(path.c_str(), directoryFlags);
	if (fd < 0)
		throw systemError(info.Env(), {errno, "open", path, ""});
	return Napi::Number::New(info.Env(), fd);
}

Napi::Value openDirAt(const Napi::CallbackInfo &info) {
	const int dir = intArg(info[0], "dir");
	return Napi::Number::New(
		info.Env(), openAtOrThrow(info.Env(), dir, nameArg(info[1], "name"), directoryFlags).release());
}

Napi::Value mkdirAt(const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	const int dir = intArg(info[0], "dir");
	const std::string name = nameArg(info[1], "name");
	if (mkdirat(dir, name.c_str(), 0755) != 0)
		throw systemError(env, {errno, "mkdirat", pathAt(dir, name), ""});
	Fd made(openat(dir, name.c_str(), directoryFlags | O_NOFOLLOW));
	if (!made) {
		// Out of descriptors, say. The caller could not know that there is something to remove.
		const int err = errno;
		unlinkat(dir, name.c_str(), AT_REMOVEDIR);
		throw systemError(env, {err, "openat", pathAt(dir, name), ""});
	}
	const ino_t id = inodeOf(env, made.get());
	Napi::Object result = Napi::Object::New(env);
	result.Set("fd", made.release());
	result.Set("id", static_cast<double>(id));
	return result;
}

Napi::Value inode(const Napi::CallbackInfo &info) {
	return Napi::Number::New(info.Env(), static_cast<double>(inodeOf(info.Env(), intArg(info[0], "fd"))));
}

Napi::Value tryLock(const Napi::CallbackInfo &info) {
	const int fd = intArg(info[0], "fd");
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return Napi::Boolean::New(info.Env(), true);
	if (errno == EWOULDBLOCK)
		return Napi::Boolean::New(info.Env(), false);
	throw systemError(info.Env(), {errno, "flock", pathOf(fd), ""});
}

void rmdirAt(const Napi::CallbackInfo &info) {
	const int dir = intArg(info[0], "dir");
	const std::string name = nameArg(info[1], "name");
	if (unlinkat(dir, name.c_str(), AT_REMOVEDIR) != 0)
		throw systemError(info.Env(), {errno, "unlinkat", pathAt(dir, name), ""});
}

Napi::Value openAt(const Napi::CallbackInfo &info) {
	const int dir = intArg(info[0], "dir");
	const std::string name = nameArg(info[1], "name");
	if (!info[2].IsBoolean())
		throw argType(info.Env(), "write", "a boolean");
	const int flags = info[2].As<Napi::Boolean>() ? O_WRONLY : O_RDONLY;
	return Napi::Number::New(info.Env(), openAtOrThrow(info.Env(), dir, name, flags).release());
}

Napi::Value readAt(const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	const int dir = intArg(info[0], "dir");
	const std::string name = nameArg(info[1], "name");
	Fd file = openAtOrThrow(env, dir, name, O_RDONLY);
	std::string text;
	char part[4096];
	for (;;) {
		const ssize_t length = read(file.get(), part, sizeof(part));
		if (length < 0)
			throw systemError(env, {errno, "read", pathAt(dir, name), ""});
		if (length == 0)
			return Napi::String::New(env, text);
		text.append(part, static_cast<size_t>(length));
		if (text.size() > readLimit)
			throw systemError(env, {EFBIG, "read", pathAt(dir, name), ""});
	}
}

void writeAt(const Napi::CallbackInfo &info) {
	const int dir = intArg(info[0], "dir");
	const std::string name = nameArg(info[1], "name");
	const std::string value = stringArg(info[2], "value");
	Fd file = openAtOrThrow(info.Env(), dir, name, O_WRONLY);
	if (const int err = writeWhole(file.get(), value))
		throw systemError(info.Env(), {err, "write", pathAt(dir, name), value});
}

class Write : public Napi::AsyncWorker {
 public:
	Write(Napi::Env env, Fd file, std::string path, std::string value)
		: Napi::AsyncWorker(env, "agentrm.writeAtAsync"),
		  promise(Napi::Promise::Deferred::New(env)),
		  file_(std::move(file)),
		  path_(std::move(path)),
		  value_(std::move(value)) {}

	void Execute() override { err_ = writeWhole(file_.get(), value_); }

	void OnOK() override {
		file_.reset();
		if (err_ == 0)
			promise.Resolve(Env().Undefined());
		else
			promise.Reject(systemError(Env(), {err_, "write", path_, value_}).Value());
	}

	Napi::Promise::Deferred promise;

 private:
	Fd file_;
	std::string path_;
	std::string value_;
	int err_ = 0;
};

Napi::Value writeAtAsync(const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	const int dir = intArg(info[0], "dir");
	const std::string name = nameArg(info[1], "name");
	std::string value = stringArg(info[2], "value");
	std::string path = pathAt(dir, name);
	Fd file(openat(dir, name.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
	if (!file) {
		const int err = errno;
		Napi::Promise::Deferred failed = Napi::Promise::Deferred::New(env);
		failed.Reject(systemError(env, {err, "openat", path, ""}).Value());
		return failed.Promise();
	}
	// Deletes itself after OnOK.
	Write *work = new Write(env, std::move(file), std::move(path), std::move(value));
	Napi::Promise promise = work->promise.Promise();
	work->Queue();
	return promise;
}

double readNumber(int fd) {
	char text[32];
	const ssize_t length = pread(fd, text, sizeof(text) - 1, 0);
	if (length <= 0)
		return -1;
	text[length] = '\0';
	if (strncmp(text, "max", 3) == 0)
		return std::numeric_limits<double>::infinity();
	char *end;
	const unsigned long long number = strtoull(text, &end, 10);
	return end == text ? -1 : static_cast<double>(number);
}

void readNumbers(const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array)
		throw argType(env, "fds", "an Int32Array");
	if (!info[1].IsTypedArray() || info[1].As<Napi::TypedArray>().TypedArrayType() != napi_float64_array)
		throw argType(env, "out", "a Float64Array");
	const Napi::Int32Array fds = info[0].As<Napi::Int32Array>();
	Napi::Float64Array out = info[1].As<Napi::Float64Array>();
	if (fds.ElementLength() != out.ElementLength())
		throw argValue(env, "out", "must be as long as fds");
	for (size_t i = 0; i < fds.ElementLength(); i++)
		out[i] = readNumber(fds[i]);
}

void setXattr(const Napi::CallbackInfo &info) {
	const int dir = intArg(info[0], "dir");
	const std::string name = stringArg(info[1], "name");
	const std::string value = stringArg(info[2], "value");
	if (fsetxattr(dir, name.c_str(), value.data(), value.size(), 0) != 0)
		throw systemError(info.Env(), {errno, "fsetxattr", pathOf(dir), ""});
}

Napi::Value getXattr(const Napi::CallbackInfo &info) {
	const int dir = intArg(info[0], "dir");
	const std::string name = stringArg(info[1], "name");
	std::vector<char> value(xattrLimit);
	const ssize_t length = fgetxattr(dir, name.c_str(), value.data(), value.size());
	if (length >= 0)
		return Napi::String::New(info.Env(), value.data(), static_cast<size_t>(length));
	if (errno == ENODATA)
		return info.Env().Null();
	throw systemError(info.Env(), {errno, "fgetxattr", pathOf(dir), ""});
}

Napi::Value isCgroup2(const Napi::CallbackInfo &info) {
	const std::string path = stringArg(info[0], "path");
	struct statfs fs;
	if (statfs(path.c_str(), &fs) != 0)
		throw systemError(info.Env(), {errno, "statfs", path, ""});
	return Napi::Boolean::New(info.Env(), fs.f_type == CGROUP2_SUPER_MAGIC);
}

}  // namespace

void exportCgroup(Napi::Env env, Napi::Object exports) {
	exports.Set("openDir", Napi::Function::New(env, openDir, "openDir"));
	exports.Set("openDirAt", Napi::Function::New(env, openDirAt, "openDirAt"));
	exports.Set("mkdirAt", Napi::Function::New(env, mkdirAt, "mkdirAt"));
	exports.Set("inode", Napi::Function::New(env, inode, "inode"));
	exports.Set("tryLock", Napi::Function::New(env, tryLock, "tryLock"));
	exports.Set("rmdirAt", Napi::Function::New(env, rmdirAt, "rmdirAt"));
	exports.Set("openAt", Napi::Function::New(env, openAt, "openAt"));
	exports.Set("readAt", Napi::Function::New(env, readAt, "readAt"));
	exports.Set("writeAt", Napi::Function::New(env, writeAt, "writeAt"));
	exports.Set("writeAtAsync", Napi::Function::New(env, writeAtAsync, "writeAtAsync"));
	exports.Set("readNumbers", Napi::Function::New(env, readNumbers, "readNumbers"));
	exports.Set("setXattr", Napi::Function::New(env, setXattr, "setXattr"));
	exports.Set("getXattr", Napi::Function::New(env, getXattr, "getXattr"));
	exports.Set("isCgroup2", Napi::Function::New(env, isCgroup2, "isCgroup2"));
}

}  // namespace agentrm
