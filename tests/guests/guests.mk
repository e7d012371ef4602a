# SPDX-License-Identifier: GPL-3.0-or-later
# Guests that try to break determinism, one C file each; what each is about stands at its head. The
# line "timing: dependent" or "timing: independent" there says whether two recordings print the
# same; tests/battery.sh reads it.
TEST_GUESTS += tasks memloop strings sse user selfmod shadows instrs paging serial_in nested poll \
	storm idle spin wide avx virtio hostile slid ports
