// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * One of the PC's devices under random accesses to its ports, with time that passes, input, and states from a
 * damaged file. FUZZ_DEVICE is its name; the others are there but left alone.
 */
#include "tests/fuzz/input.h"
#include "tests/unit/device_board.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define OPS JOIN(FUZZ_DEVICE, _ops)
#define RANGES JOIN(FUZZ_DEVICE, _ranges)

static struct board board;

/* State from a file, whole or with some bytes changed. */
static void restore(struct reader *in, void *dev)
{
	unsigned changes = reader_u8(in) % 8;
	struct walker save, from;

	walker_init_save(&save);
	OPS.walk(dev, &save);
	while (changes-- && save.out.len)
		save.out.data[reader_u16(in) % save.out.len] = reader_u8(in);
	walker_init_restore(&from, save.out.data, save.out.len);
	OPS.walk(dev, &from);
	walker_fini(&from);
	walker_fini(&save);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader in = reader_init(data, size);
	void *dev = &board.FUZZ_DEVICE;
	uint8_t bytes[UART_FIFO];
	unsigned line;

	board_init(&board, 0);
	while (reader_left(&in)) {
		uint8_t what = reader_u8(&in), where = reader_u8(&in);
		const struct pio_range *range = &RANGES[where % ARRAY_SIZE(RANGES)];
		uint16_t port = (uint16_t)(range->base + (where >> 4) % range->count);
		unsigned width = 1u << what / 8 % 3;

		switch (what % 8) {
		case 0:
		case 1:
			OPS.pio_write(dev, port, width, reader_u32(&in));
			break;
		case 2:
			OPS.pio_read(dev, port, width);
			break;
		case 3:
			board.now += reader_u64(&in) >> what / 8;
			break;
		case 4:
			if (OPS.tick)
				OPS.tick(dev);
			if (OPS.deadline)
				OPS.deadline(dev, &line);
			break;
		case 5:
			uart_receive(&board.uart, bytes,
				     input_bytes(&in, bytes, uart_room(&board.uart)));
			break;
		case 6:
			pic_set_line(&board.pic, where % 16, where >> 4 & 1);
			if (pic_pending(&board.pic))
				pic_acknowledge(&board.pic);
			break;
		default:
			restore(&in, dev);
		}
	}
	return 0;
}
