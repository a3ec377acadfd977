/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls without libc. Every tool call pays for this program's start, and
 * libc's own start-up costs several times what the program does itself; with
 * file capabilities (AT_SECURE) libc would also strip variables such as TMPDIR
 * from the environment that the command is to inherit.
 *
 * Every function returns what the kernel returns: -errno on failure.
 */
#ifndef AGENTRM_SYS_H
#define AGENTRM_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <asm/unistd.h>

#if defined(__x86_64__)
static inline long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
static inline long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}
#else
#error "agentrm-run knows the system calls of x86-64 and arm64"
#endif

#define SYS5(name, a, b, c, d, e) \
	sys6(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define SYS4(name, a, b, c, d) SYS5(name, a, b, c, d, 0)
#define SYS3(name, a, b, c) SYS4(name, a, b, c, 0)
#define SYS2(name, a, b) SYS3(name, a, b, 0)
#define SYS1(name, a) SYS2(name, a, 0)
#define SYS0(name) SYS1(name, 0)

/* A set of signals as the kernel takes it: bit N-1 is signal N. */
typedef uint64_t sigset64;
#define SIGBIT(sig) (1ULL << ((sig) - 1))

/* struct sigaction as the kernel takes it, on both machines. */
struct ksigaction {
	void (*handler)(int);
	unsigned long flags;
	void (*restorer)(void);
	sigset64 mask;
};

static inline long sys_sigmask(int how, const sigset64 *set, sigset64 *old)
{
	return SYS4(rt_sigprocmask, how, set, old, sizeof(*set));
}

static inline long sys_sigaction(int sig, const struct ksigaction *act, struct ksigaction *old)
{
	return SYS4(rt_sigaction, sig, act, old, sizeof(act->mask));
}

__attribute__((noreturn)) static inline void sys_exit(int code)
{
	for (;;)
		SYS1(exit_group, code);
}

#endif
