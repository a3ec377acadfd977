// SPDX-License-Identifier: Apache-2.0
// The entry point, and the four functions that a compiler may call by itself.
#include <elf.h>

#include "sys.h"

#if defined(__x86_64__)
__asm__(".globl _start\n"
	"_start:\n"
	"	xor	%ebp, %ebp\n"
	"	mov	%rsp, %rdi\n"
	"	and	$-16, %rsp\n"
	"	call	start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n"
	"_start:\n"
	"	mov	x29, xzr\n"
	"	mov	x30, xzr\n"
	"	mov	x0, sp\n"
	"	bl	start\n");
#endif

int main(int argc, char **argv, char **envp);

extern const Elf64_Dyn _DYNAMIC[] __attribute__((visibility("hidden")));
extern char __ehdr_start[] __attribute__((visibility("hidden")));

/*
 * Position independent and static: nobody else fills in the few addresses that
 * lie in data. All of them are relative to where the program was loaded.
 */
static void relocate(void)
{
	uintptr_t base = (uintptr_t)__ehdr_start, rela = 0;
	size_t bytes = 0;

	for (const Elf64_Dyn *d = _DYNAMIC; d->d_tag != DT_NULL; d++) {
		if (d->d_tag == DT_RELA)
			rela = base + d->d_un.d_ptr;
		else if (d->d_tag == DT_RELASZ)
			bytes = d->d_un.d_val;
	}
	for (const Elf64_Rela *r = (const Elf64_Rela *)rela; (uintptr_t)r < rela + bytes; r++)
		*(uintptr_t *)(base + r->r_offset) = base + (uintptr_t)r->r_addend;
}

/* stack: argc, argv[], NULL, envp[], NULL, auxv[], as the kernel leaves it. */
__attribute__((noreturn, used)) void start(long *stack)
{
	int argc = (int)stack[0];
	char **argv = (char **)(stack + 1);

	relocate();
	sys_exit(main(argc, argv, argv + argc + 1));
}

/* The empty asm keeps the compiler from turning these loops into calls of themselves. */
#define OPAQUE() __asm__("" ::: "memory")

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		((char *)to)[i] = ((const char *)from)[i];
		OPAQUE();
	}
	return to;
}

void *memmove(void *to, const void *from, size_t n)
{
	if (to <= from)
		return memcpy(to, from, n);
	for (size_t i = n; i-- > 0;) {
		((char *)to)[i] = ((const char *)from)[i];
		OPAQUE();
	}
	return to;
}

void *memset(void *to, int byte, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		((char *)to)[i] = (char)byte;
		OPAQUE();
	}
	return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int d = ((const unsigned char *)a)[i] - ((const unsigned char *)b)[i];

		if (d)
			return d;
		OPAQUE();
	}
	return 0;
}
