// SPDX-License-Identifier: GPL-3.0-or-later
/* Descriptor tables, traps, the 8259 pair, the way to user mode and back. */
#include "guest.h"

#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_SFMASK 0xc0000084

#define PIC1 0x20
#define PIC2 0xa0
#define PIC_EOI 0x20
#define PIC_READ_ISR 0x0b

#define VECTOR_NMI 2
#define VECTOR_DOUBLE_FAULT 8

struct idt_entry {
	uint16_t offset_low, selector;
	uint8_t ist, type;
	uint16_t offset_middle;
	uint32_t offset_high, reserved;
};

struct tss {
	uint32_t reserved0;
	uint64_t rsp[3], reserved1, ist[7], reserved2;
	uint16_t reserved3, io_map;
	uint8_t io_bitmap[256 / 8 + 1]; /* a bit set: user code may not; the last byte is beyond all ports */
} __attribute__((packed));

struct table_pointer {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

extern uint64_t gdt[];
extern char trap_stubs[], kernel_stack_top[], fault_stack_top[], syscall_entry[];
void trap_dispatch(struct trap_frame *frame);
uint64_t syscall_dispatch(uint64_t nr, uint64_t a, uint64_t b, uint64_t c);
void user_jump(void (*fn)(void), void *stack_top) __attribute__((noreturn));

static struct idt_entry idt[256];
static struct tss tss;
static void (*trap_handler[256])(struct trap_frame *frame);
static void (*irq_handler[IRQ_LINES])(void);
static uint64_t (*syscall_handler)(uint64_t nr, uint64_t a, uint64_t b, uint64_t c);

static void pic_init(void)
{
	outb(PIC1, 0x11);
	outb(PIC2, 0x11);
	outb(PIC1 + 1, IRQ_BASE);
	outb(PIC2 + 1, IRQ_BASE + 8);
	outb(PIC1 + 1, 1 << 2); /* the second chip hangs on line 2 */
	outb(PIC2 + 1, 2);
	outb(PIC1 + 1, 1);
	outb(PIC2 + 1, 1);
	outb(PIC1 + 1, 0xff & ~(1 << 2));
	outb(PIC2 + 1, 0xff);
}

void cpu_init(void)
{
	struct table_pointer idt_pointer = {sizeof(idt) - 1, (uint64_t)idt};
	uint64_t stub = (uint64_t)trap_stubs, base = (uint64_t)&tss;

	for (unsigned i = 0; i < 256; i++, stub += 16) {
		idt[i].offset_low = (uint16_t)stub;
		idt[i].offset_middle = (uint16_t)(stub >> 16);
		idt[i].selector = SEL_KERNEL_CODE;
		idt[i].type = 0x8e;
	}
	idt[VECTOR_NMI].ist = 1;
	idt[VECTOR_DOUBLE_FAULT].ist = 1;
	tss.rsp[0] = (uint64_t)kernel_stack_top;
	tss.ist[0] = (uint64_t)fault_stack_top;
	tss.io_map = offsetof(struct tss, io_bitmap);
	memset(tss.io_bitmap, 0xff, sizeof(tss.io_bitmap));
	gdt[SEL_TSS / 8] = (sizeof(tss) - 1) | (base & 0xffffff) << 16 | 0x89UL << 40 |
			   (base >> 24 & 0xff) << 56;
	gdt[SEL_TSS / 8 + 1] = base >> 32;
	__asm__ volatile("ltr %0" ::"r"((uint16_t)SEL_TSS));
	__asm__ volatile("lidt %0" ::"m"(idt_pointer));
	wrmsr(MSR_STAR, (uint64_t)SEL_SYSRET_BASE << 48 | (uint64_t)SEL_KERNEL_CODE << 32);
	wrmsr(MSR_LSTAR, (uint64_t)syscall_entry);
	wrmsr(MSR_SFMASK, 0x47700); /* AC, NT, IOPL, DF, IF, TF */
	pic_init();
}

void user_allow_port(uint8_t port)
{
	tss.io_bitmap[port / 8] &= (uint8_t)~(1u << port % 8);
}

void irq_set_handler(unsigned line, void (*fn)(void))
{
	irq_handler[line] = fn;
}

void irq_unmask(unsigned line)
{
	uint16_t port = line < 8 ? PIC1 + 1 : PIC2 + 1;

	outb(port, (uint8_t)(inb(port) & ~(1u << (line & 7))));
}

void irq_mask(unsigned line)
{
	uint16_t port = line < 8 ? PIC1 + 1 : PIC2 + 1;

	outb(port, (uint8_t)(inb(port) | 1u << (line & 7)));
}

void trap_set_handler(unsigned vector, void (*fn)(struct trap_frame *frame))
{
	trap_handler[vector] = fn;
}

/* Lines 7 and 15 also stand for "the request went away": then nothing is in service. */
static bool irq_spurious(unsigned line)
{
	uint16_t chip = line < 8 ? PIC1 : PIC2;

	if ((line & 7) != 7)
		return false;
	outb(chip, PIC_READ_ISR);
	if (inb(chip) & 0x80)
		return false;
	if (line == 15)
		outb(PIC1, PIC_EOI);
	return true;
}

static void irq_dispatch(unsigned line)
{
	if (irq_spurious(line))
		return;
	if (irq_handler[line])
		irq_handler[line]();
	if (line >= 8)
		outb(PIC2, PIC_EOI);
	outb(PIC1, PIC_EOI);
}

static const char *trap_name(uint64_t vector)
{
	static const char *const name[] = {
		"divide error",
		"debug",
		"NMI",
		"breakpoint",
		"overflow",
		"bound range",
		"invalid opcode",
		"device not available",
		"double fault",
		"vector 9",
		"invalid TSS",
		"segment not present",
		"stack fault",
		"general protection",
		"page fault",
		"vector 15",
		"x87 error",
		"alignment check",
	};

	return vector < sizeof(name) / sizeof(name[0]) ? name[vector] : "unexpected vector";
}

static void trap_unhandled(const struct trap_frame *f)
{
	uint64_t cr2 = read_cr2();

	kprintf("PANIC: %s (vector %lu), error %lx, cr2 %016lx\n", trap_name(f->vector), f->vector,
		f->error, cr2);
	kprintf("rip %016lx cs %04lx rflags %08lx rsp %016lx ss %04lx\n", f->rip, f->cs, f->rflags,
		f->rsp, f->ss);
	kprintf("rax %016lx rbx %016lx rcx %016lx rdx %016lx\n", f->rax, f->rbx, f->rcx, f->rdx);
	kprintf("rsi %016lx rdi %016lx rbp %016lx r8  %016lx\n", f->rsi, f->rdi, f->rbp, f->r8);
	kprintf("r9  %016lx r10 %016lx r11 %016lx r12 %016lx\n", f->r9, f->r10, f->r11, f->r12);
	kprintf("r13 %016lx r14 %016lx r15 %016lx\n", f->r13, f->r14, f->r15);
	backtrace_print(f->rip, f->rbp);
	guest_exit(1);
}

void trap_dispatch(struct trap_frame *frame)
{
	if (trap_handler[frame->vector & 0xff])
		trap_handler[frame->vector & 0xff](frame);
	else if (frame->vector >= IRQ_BASE && frame->vector < IRQ_BASE + IRQ_LINES)
		irq_dispatch((unsigned)frame->vector - IRQ_BASE);
	else
		trap_unhandled(frame);
}

void syscall_set_handler(uint64_t (*fn)(uint64_t nr, uint64_t a, uint64_t b, uint64_t c))
{
	syscall_handler = fn;
}

uint64_t syscall_dispatch(uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	if (!syscall_handler)
		panic("system call %lu without a handler", nr);
	return syscall_handler(nr, a, b, c);
}

void user_pages_open(void)
{
	for (char *p = guest_user_text_start; p < guest_user_text_end; p += PAGE_SIZE)
		page_map((uint64_t)p, (uint64_t)p, PAGE_PRESENT | PAGE_USER);
	for (char *p = guest_user_data_start; p < guest_user_data_end; p += PAGE_SIZE)
		page_map((uint64_t)p, (uint64_t)p, PAGE_PRESENT | PAGE_WRITE | PAGE_USER);
}

void user_enter(void (*fn)(void), void *stack_top)
{
	irq_disable();
	/* As if called: the ABI wants RSP + 8 on a 16-byte boundary at a function's entry. */
	user_jump(fn, (char *)stack_top - 8);
}
