// SPDX-License-Identifier: GPL-3.0-or-later
/* Serial console, formatted output, the ways to end. */
#include "guest.h"

#define LSR_DATA_READY 0x01
#define LSR_THR_EMPTY 0x20

void serial_init(void)
{
	outb(COM1 + 1, 0);    /* no interrupts */
	outb(COM1 + 3, 0x80); /* divisor latch: 115200 baud */
	outb(COM1 + 0, 1);
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 0x03); /* 8n1 */
	outb(COM1 + 2, 0x07); /* FIFOs on and empty */
	outb(COM1 + 4, 0x03); /* DTR, RTS */
}

void serial_putc(char c)
{
	if (c == '\n')
		serial_putc('\r');
	while (!(inb(COM1 + 5) & LSR_THR_EMPTY))
		;
	outb(COM1, (uint8_t)c);
}

void serial_puts(const char *s)
{
	while (*s)
		serial_putc(*s++);
}

bool serial_ready(void)
{
	return inb(COM1 + 5) & LSR_DATA_READY;
}

char serial_getc(void)
{
	while (!serial_ready())
		;
	return (char)inb(COM1);
}

void debug_putc(char c)
{
	outb(DEBUG_PORT, (uint8_t)c);
}

static void print_field(const char *s, size_t len, unsigned width, bool left, char pad)
{
	for (size_t i = len; !left && i < width; i++)
		serial_putc(pad);
	for (size_t i = 0; i < len; i++)
		serial_putc(s[i]);
	for (size_t i = len; left && i < width; i++)
		serial_putc(' ');
}

static void print_number(uint64_t v, unsigned base, bool negative, unsigned width, bool left,
			 char pad)
{
	char text[24];
	size_t at = sizeof(text);

	do {
		text[--at] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	if (negative && pad == '0' && width) {
		serial_putc('-');
		width--;
	} else if (negative) {
		text[--at] = '-';
	}
	print_field(text + at, sizeof(text) - at, width, left, pad);
}

void kvprintf(const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		bool left = false, longer = false;
		unsigned width = 0;
		char pad = ' ';

		if (*fmt != '%') {
			serial_putc(*fmt);
			continue;
		}
		for (fmt++; *fmt == '-' || *fmt == '0'; fmt++) {
			left |= *fmt == '-';
			pad = *fmt == '0' ? '0' : pad;
		}
		for (; *fmt >= '0' && *fmt <= '9'; fmt++)
			width = width * 10 + (unsigned)(*fmt - '0');
		for (; *fmt == 'l' || *fmt == 'z'; fmt++)
			longer = true;
		if (*fmt == 'd') {
			int64_t v = longer ? va_arg(ap, int64_t) : va_arg(ap, int);

			print_number(v < 0 ? -(uint64_t)v : (uint64_t)v, 10, v < 0, width, left,
				     pad);
		} else if (*fmt == 'u' || *fmt == 'x') {
			uint64_t v = longer ? va_arg(ap, uint64_t) : va_arg(ap, unsigned);

			print_number(v, *fmt == 'u' ? 10 : 16, false, width, left, pad);
		} else if (*fmt == 'p') {
			serial_puts("0x");
			print_number((uint64_t)va_arg(ap, void *), 16, false, width, left, pad);
		} else if (*fmt == 's') {
			const char *s = va_arg(ap, const char *);

			print_field(s, strlen(s), width, left, ' ');
		} else if (*fmt == 'c') {
			serial_putc((char)va_arg(ap, int));
		} else if (*fmt == '%') {
			serial_putc('%');
		} else {
			return;
		}
	}
}

void kprintf(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	kvprintf(fmt, ap);
	va_end(ap);
}

void guest_exit(int status)
{
	outb(EXIT_PORT, (uint8_t)status);
	for (;;)
		__asm__ volatile("cli; hlt" ::: "memory");
}

void backtrace_print(uint64_t rip, uint64_t rbp)
{
	serial_puts("back-trace:\n");
	for (int depth = 0; depth < 16 && rip; depth++) {
		kprintf("  [<0x%lx>]\n", rip);
		if (rbp < 4096 || rbp >= 1UL << 30 || rbp % 8)
			break;
		rip = ((uint64_t *)rbp)[1];
		rbp = ((uint64_t *)rbp)[0];
	}
}

void panic(const char *fmt, ...)
{
	uint64_t rbp = (uint64_t)__builtin_frame_address(0);
	uint64_t flags = irq_save();
	va_list ap;

	serial_puts("PANIC: ");
	va_start(ap, fmt);
	kvprintf(fmt, ap);
	va_end(ap);
	kprintf("\nrsp %016lx rbp %016lx rflags %08lx cr2 %016lx cr3 %016lx tick %lu\n", rbp + 16,
		*(uint64_t *)rbp, flags, read_cr2(), read_cr3(), timer_ticks);
	backtrace_print((uint64_t)__builtin_return_address(0), *(uint64_t *)rbp);
	guest_exit(1);
}
