/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The fuzzer's bytes, taken one value after the other. Behind their end all is zero. */
#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H

#include "base/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Up to max bytes into out; returns how many there were. */
static inline size_t input_bytes(struct reader *in, uint8_t *out, size_t max)
{
	size_t n = reader_left(in) < max ? reader_left(in) : max;

	reader_get(in, out, n);
	return n;
}

#endif
