/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Support library of the example and test guests: one CPU, long mode, no libc. A guest is one or
 * more C files with a guest_main(), which the library calls with interrupts off, own GDT, IDT, TSS,
 * page tables (identity map of the first 1 GiB) and stack. Returning from it exits with status 0.
 */
#ifndef GUEST_H
#define GUEST_H

#include "loader.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void guest_main(void);

/* --- What the loader said (loader.c) ----------------------------------------------------- */
const char *guest_loader(void); /* "elf64", "pvh", "multiboot1", "multiboot2" */
uint64_t guest_ram_bytes(void); /* end of RAM; the PVH and Multiboot loaders may hold back a bit */
const char *guest_cmdline(void);
/* Value of the word name=NUMBER (decimal or 0x...) in the command line. */
uint64_t cmdline_get_u64(const char *name, uint64_t absent);

/* --- Ports ------------------------------------------------------------------------------- */
static inline void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port) : "memory");
}

static inline void outw(uint16_t port, uint16_t v)
{
	__asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline uint16_t inw(uint16_t port)
{
	uint16_t v;

	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

/* --- Console (console.c) ----------------------------------------------------------------- */
#define COM1 0x3f8
#define DEBUG_PORT 0xe9
#define EXIT_PORT 0xf4

void serial_init(void);
void serial_putc(char c);
void serial_puts(const char *s);
char serial_getc(void);	 /* waits */
bool serial_ready(void); /* a character waits */
void debug_putc(char c); /* port 0xe9: one exit a character, no status polling */
/* %d %u %x %c %s %p %%, l and ll, field width, 0 and - flags. */
void kprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void kvprintf(const char *fmt, va_list ap);
void guest_exit(int status) __attribute__((noreturn));
/* Print "PANIC: ...", registers and a back-trace, exit with status 1. */
void panic(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* --- CPU, traps, interrupts (cpu.c, trap.S) ---------------------------------------------- */
struct trap_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};

#define IRQ_BASE 0x20 /* vector of line 0 */
#define IRQ_LINES 16

void cpu_init(void);
void irq_set_handler(unsigned line, void (*fn)(void)); /* runs with interrupts off; EOI after it */
void irq_unmask(unsigned line);
void irq_mask(unsigned line);
void trap_set_handler(unsigned vector, void (*fn)(struct trap_frame *frame));
void backtrace_print(uint64_t rip, uint64_t rbp);

static inline void irq_enable(void)
{
	__asm__ volatile("sti" ::: "memory");
}

static inline void irq_disable(void)
{
	__asm__ volatile("cli" ::: "memory");
}

static inline uint64_t irq_save(void)
{
	uint64_t flags;

	__asm__ volatile("pushfq; popq %0; cli" : "=r"(flags)::"memory");
	return flags;
}

static inline void irq_restore(uint64_t flags)
{
	__asm__ volatile("pushq %0; popfq" ::"r"(flags) : "memory", "cc");
}

static inline void cpu_halt(void)
{
	__asm__ volatile("sti; hlt" ::: "memory");
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t v)
{
	__asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)));
}

static inline uint64_t read_cr2(void)
{
	uint64_t v;

	__asm__ volatile("movq %%cr2, %0" : "=r"(v));
	return v;
}

static inline uint64_t read_cr3(void)
{
	uint64_t v;

	__asm__ volatile("movq %%cr3, %0" : "=r"(v));
	return v;
}

/* --- Timer (timer.c) --------------------------------------------------------------------- */
extern volatile uint64_t timer_ticks;

void timer_start(unsigned hz);		   /* PIT channel 0, line 0; 19 Hz or more */
void timer_set_callback(void (*fn)(void)); /* called from the interrupt, after counting the tick */

/* --- Memory (heap.c, page.c, string.c) --------------------------------------------------- */
/* Power-of-two classes of 16 bytes to 64 KiB in a static arena; what was freed last is reused
 * first. NULL when the arena is used up. Usable from interrupt handlers. */
void *kmalloc(size_t size);
void *kzalloc(size_t size);
void kfree(void *ptr);

#define PAGE_SIZE 4096UL
#define PAGE_PRESENT 0x01UL
#define PAGE_WRITE 0x02UL
#define PAGE_USER 0x04UL
#define PAGE_ACCESSED 0x20UL
#define PAGE_DIRTY 0x40UL
#define PAGE_NX (1UL << 63)

/* Map one 4 KiB page (splitting a 2 MiB page of the boot map where one is in the way). */
void page_map(uint64_t gva, uint64_t gpa, uint64_t flags);
void page_unmap(uint64_t gva);
/* Last-level entry of a 4 KiB page, or NULL if none of that size is mapped there. */
uint64_t *page_entry(uint64_t gva);
/* Let user mode touch all that is mapped. */
void page_open_all(void);
void tlb_flush(uint64_t gva);

void *memcpy(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);

/* --- User mode (cpu.c, trap.S) ----------------------------------------------------------- */
/* Code and data that user mode may touch, after user_pages_open(). User code must be
 * self-contained: no calls out of its section, no string literals or tables (they lie in .rodata).
 */
#define USER_TEXT __attribute__((section(".user.text"), noinline))
#define USER_DATA __attribute__((section(".user.data")))

extern char guest_user_text_start[], guest_user_text_end[];
extern char guest_user_data_start[], guest_user_data_end[];

void user_pages_open(void); /* map .user.text and .user.data for user mode */
void user_allow_port(uint8_t port); /* by the bitmap in the TSS; IOPL stays 0 */
void user_enter(void (*fn)(void), void *stack_top) __attribute__((noreturn)); /* CPL3, IF = 1 */
void syscall_set_handler(uint64_t (*fn)(uint64_t nr, uint64_t a, uint64_t b, uint64_t c));

static inline __attribute__((always_inline)) uint64_t usyscall(uint64_t nr, uint64_t a, uint64_t b,
							       uint64_t c)
{
	uint64_t result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(nr), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return result;
}

/* --- Random numbers ---------------------------------------------------------------------- */
/* A start value, never 0: seed=N of the command line, else RDRAND if there is one, else the TSC. */
uint64_t random_seed(void);

/* xorshift64; the state must not be 0. */
static inline uint64_t xorshift64(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	return x;
}

#endif
