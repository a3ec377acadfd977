// SPDX-License-Identifier: Apache-2.0
#include "tcp_owner.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "args.h"
#include "errors.h"
#include "fd.h"

namespace agentrm {
namespace {

// An address as inet_diag has it: IPv4 in the first of four words.
struct Address {
	int family = AF_UNSPEC;
	__be32 words[4] = {};
};

Address addressArg(const Napi::Value &value, const char *name) {
	const std::string text = stringArg(value, name);
	Address address;
	// IPv4 over an IPv6 socket has addresses of IPv6: the kernel knows them as both.
	for (const int family : {AF_INET, AF_INET6}) {
		if (inet_pton(family, text.c_str(), address.words) != 1)
			continue;
		address.family = family;
		return address;
	}
	throw argValue(value.Env(), name, "must be an IP address");
}

__be16 portArg(const Napi::Value &value, const char *name) {
	const int port = intArg(value, name);
	if (port < 1 || port > 65535)
		throw argValue(value.Env(), name, "must be a port");
	return htons(static_cast<uint16_t>(port));
}

// The cgroup in which the socket was made, 0 if the kernel does not say: as an integer of 8 bytes among the attributes.
double cgroupIdIn(const struct nlmsghdr *header, const struct inet_diag_msg *found) {
	const char *at = reinterpret_cast<const char *>(found + 1);
	const char *end = reinterpret_cast<const char *>(header) + header->nlmsg_len;
	while (at + sizeof(struct nlattr) <= end) {
		struct nlattr attribute;
		memcpy(&attribute, at, sizeof(attribute));
		if (attribute.nla_len < sizeof(attribute) || attribute.nla_len > end - at)
			break;
		uint64_t id;
		if (attribute.nla_type == INET_DIAG_CGROUP_ID && attribute.nla_len >= NLA_HDRLEN + sizeof(id)) {
			memcpy(&id, at + NLA_HDRLEN, sizeof(id));
			return static_cast<double>(id);
		}
		if (NLA_ALIGN(attribute.nla_len) > end - at)
			break;
		at += NLA_ALIGN(attribute.nla_len);
	}
	return 0;
}

// One request for one socket: the kernel looks it up in its hash table, as it does for each packet. Both messages are
// handled by the kernel within sendto(2), so nothing here can block.
Napi::Value tcpOwner(const Napi::CallbackInfo &info) {
	Napi::Env env = info.Env();
	const Address own = addressArg(info[0], "address");
	const __be16 ownPort = portArg(info[1], "port");
	const Address peer = addressArg(info[2], "peerAddress");
	const __be16 peerPort = portArg(info[3], "peerPort");
	if (own.family != peer.family)
		throw argValue(env, "peerAddress", "must be of the same family as the address");

	struct {
		struct nlmsghdr header;
		struct inet_diag_req_v2 request;
	} message = {};
	message.header.nlmsg_len = sizeof(message);
	message.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
	message.header.nlmsg_flags = NLM_F_REQUEST;
	message.request.sdiag_family = static_cast<__u8>(own.family);
	message.request.sdiag_protocol = IPPROTO_TCP;
	message.request.idiag_states = ~0U;
	struct inet_diag_sockid &id = message.request.id;
	id.idiag_sport = ownPort;
	id.idiag_dport = peerPort;
	memcpy(id.idiag_src, own.words, sizeof(own.words));
	memcpy(id.idiag_dst, peer.words, sizeof(peer.words));
	id.idiag_cookie[0] = id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;

	Fd sock(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
	if (!sock)
		throw systemError(env, {errno, "socket", "", "NETLINK_SOCK_DIAG"});
	struct sockaddr_nl kernel = {};
	kernel.nl_family = AF_NETLINK;
	if (sendto(sock.get(), &message, sizeof(message), 0, reinterpret_cast<struct sockaddr *>(&kernel),
	           sizeof(kernel)) < 0)
		throw systemError(env, {errno, "sendto", "", "NETLINK_SOCK_DIAG"});

	alignas(struct nlmsghdr) char answer[2048];
	const ssize_t length = recv(sock.get(), answer, sizeof(answer), MSG_DONTWAIT);
	if (length < 0)
		throw systemError(env, {errno, "recv", "", "NETLINK_SOCK_DIAG"});
	const auto *header = reinterpret_cast<const struct nlmsghdr *>(answer);
	if (!NLMSG_OK(header, static_cast<size_t>(length)))
		throw systemError(env, {EBADMSG, "recv", "", "NETLINK_SOCK_DIAG"});
	if (header->nlmsg_type == NLMSG_ERROR && header->nlmsg_len >= NLMSG_LENGTH(sizeof(struct nlmsgerr))) {
		const int error = -static_cast<const struct nlmsgerr *>(NLMSG_DATA(header))->error;
		if (error == ENOENT)
			return env.Null();
		throw systemError(env, {error, "sendto", "", "NETLINK_SOCK_DIAG"});
	}
	if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || header->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
		throw systemError(env, {EBADMSG, "recv", "", "NETLINK_SOCK_DIAG"});
	const auto *found = static_cast<const struct inet_diag_msg *>(NLMSG_DATA(header));
	// With no such connection the kernel answers with whoever listens on the port. What is closed has no inode any more,
	// and 0 for its user.
	if (found->id.idiag_sport != ownPort || found->id.idiag_dport != peerPort || found->idiag_inode == 0)
		return env.Null();
	Napi::Object owner = Napi::Object::New(env);
	owner.Set("uid", static_cast<double>(found->idiag_uid));
	owner.Set("cgroupId", cgroupIdIn(header, found));
	return owner;
}

}  // namespace

void exportTcpOwner(Napi::Env env, Napi::Object exports) {
	exports.Set("tcpOwner", Napi::Function::New(env, tcpOwner, "tcpOwner"));
}

}  // namespace agentrm
