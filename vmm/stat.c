// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/stat.h"

#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define NAME_MAX_SIZE 256

struct kvm_stat kvm_stat_open(int of, const char *name)
{
	struct kvm_stat s = {.fd = ioctl(of, KVM_GET_STATS_FD, NULL)};
	struct kvm_stats_header header;

	if (s.fd < 0 || pread(s.fd, &header, sizeof(header), 0) != sizeof(header) ||
	    header.name_size > NAME_MAX_SIZE)
		goto none;
	for (uint32_t i = 0; i < header.num_desc; i++) {
		size_t size = sizeof(struct kvm_stats_desc) + header.name_size;
		_Alignas(struct kvm_stats_desc) char
			raw[sizeof(struct kvm_stats_desc) + NAME_MAX_SIZE + 1] = {0};
		const struct kvm_stats_desc *desc = (const void *)raw;

		if (pread(s.fd, raw, size, (off_t)(header.desc_offset + i * size)) != (ssize_t)size)
			break;
		if (strcmp(desc->name, name) == 0) {
			s.offset = header.data_offset + desc->offset;
			return s;
		}
	}
none:
	kvm_stat_close(&s);
	return s;
}

void kvm_stat_close(struct kvm_stat *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

bool kvm_stat_read(const struct kvm_stat *s, uint64_t *value)
{
	return s->fd >= 0 &&
	       pread(s->fd, value, sizeof(*value), (off_t)s->offset) == sizeof(*value);
}
