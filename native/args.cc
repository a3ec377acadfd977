// SPDX-License-Identifier: Apache-2.0
#include "args.h"

#include <climits>
#include <cmath>

#include "errors.h"

namespace agentrm {

static double wholeNumber(const Napi::Value &value, const char *name, double limit) {
	if (!value.IsNumber())
		throw argType(value.Env(), name, "a number");
	const double number = value.As<Napi::Number>().DoubleValue();
	if (!(number >= 0 && number <= limit) || number != std::floor(number))
		throw argValue(value.Env(), name, "must be a whole number from 0 to " + std::to_string(static_cast<uint64_t>(limit)));
	return number;
}

int intArg(const Napi::Value &value, const char *name) {
	return static_cast<int>(wholeNumber(value, name, INT_MAX));
}

uint64_t uintArg(const Napi::Value &value, const char *name) {
	return static_cast<uint64_t>(wholeNumber(value, name, 9007199254740991.0));
}

std::string stringArg(const Napi::Value &value, const char *name) {
	if (!value.IsString())
		throw argType(value.Env(), name, "a string");
	std::string text = value.As<Napi::String>().Utf8Value();
	if (text.find('\0') != std::string::npos)
		throw argValue(value.Env(), name, "must not contain null bytes");
	return text;
}

std::string nameArg(const Napi::Value &value, const char *name) {
	std::string text = stringArg(value, name);
	if (text.empty() || text == "." || text == ".." || text.find('/') != std::string::npos)
		throw argValue(value.Env(), name, "must be one path component");
	return text;
}

Napi::Function functionArg(const Napi::Value &value, const char *name) {
	if (!value.IsFunction())
		throw argType(value.Env(), name, "a function");
	return value.As<Napi::Function>();
}

}  // namespace agentrm
