// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/symset.h"

#include "debugger/module.h"
#include "debugger/session.h"
#include "debugger/slide.h"

#include <errno.h>
#include <gelf.h>
#include <inttypes.h>
#include <libelf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct mapped {
	const uint8_t *data;
	size_t size;
};

struct module_file {
	const char *path;
	struct mapped file;
	bool has_text;   /* given by the user */
	gva_t text;
	uint8_t *linked; /* what symbols refers to */
	struct symbols *symbols; /* NULL: not found */
};

struct symset {
	uint8_t *unpacked;    /* kernel of a bzImage */
	struct mapped vmlinux; /* given by --symbols */
	struct symbols *kernel;
	uint64_t slide;
	struct module_file module[SYMBOLS_FILES_MAX];
	size_t modules;
};

/* The GNU build id (NT_GNU_BUILD_ID of ld) of an ELF file. */
static bool build_id(const uint8_t *data, size_t size, uint8_t id[64], size_t *len)
{
	Elf_Scn *scn = NULL;
	bool found = false;
	Elf *elf;

	elf_version(EV_CURRENT);
	elf = elf_memory((char *)(uintptr_t)data, size);
	while (elf && elf_kind(elf) == ELF_K_ELF && !found && (scn = elf_nextscn(elf, scn))) {
		size_t at = 0, name_at, desc_at;
		GElf_Shdr sh;
		GElf_Nhdr note;
		Elf_Data *d;

		if (!gelf_getshdr(scn, &sh) || sh.sh_type != SHT_NOTE || !(d = elf_getdata(scn, NULL)))
			continue;
		while (!found && (at = gelf_getnote(d, at, &note, &name_at, &desc_at)) > 0) {
			found = note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof(ELF_NOTE_GNU) &&
				memcmp((char *)d->d_buf + name_at, ELF_NOTE_GNU, sizeof(ELF_NOTE_GNU)) == 0 &&
				note.n_descsz <= 64;
			if (found) {
				*len = note.n_descsz;
				memcpy(id, (char *)d->d_buf + desc_at, *len);
			}
		}
	}
	elf_end(elf);
	return found;
}

/* The file goes with the kernel that was recorded, as far as both say. */
static int check_build(const char *path, const struct mapped *file, const struct guest_image *kernel,
		       struct err *err)
{
	uint8_t ours[64], theirs[64];
	size_t our_len, their_len;

	if (!build_id(file->data, file->size, ours, &our_len) ||
	    !build_id(kernel->kernel, kernel->kernel_size, theirs, &their_len) ||
	    (our_len == their_len && memcmp(ours, theirs, our_len) == 0))
		return 0;
	return err_set(err, EINVAL, "%s is of another build than the recorded kernel: their build ids differ", path);
}

/* FILE or FILE@ADDR; the file's own name may hold an @. */
static int split(const char *text, char **path, bool *has_text, gva_t *at, struct err *err)
{
	const char *sign = strrchr(text, '@');
	char *end = NULL;

	*has_text = false;
	if (sign && sign[1]) {
		errno = 0;
		at->v = strtoull(sign + 1, &end, 16);
		*has_text = !errno && !*end;
	}
	*path = *has_text ? strndup(text, (size_t)(sign - text)) : strdup(text);
	return *path ? 0 : err_set(err, ENOMEM, "out of memory");
}

static int link_module(struct module_file *f, struct err *err)
{
	int rc = module_link(f->file.data, f->file.size, f->text, &f->linked, err);

	return rc < 0 ? rc : symbols_open(f->linked, f->file.size, &f->symbols, err);
}

static void unlink_module(struct module_file *f)
{
	symbols_close(f->symbols);
	f->symbols = NULL;
	free(f->linked);
	f->linked = NULL;
}

static int add_file(struct symset *set, const char *text, const struct guest_image *kernel, struct err *err)
{
	struct module_file f = {0};
	char *path;
	int rc = split(text, &path, &f.has_text, &f.text, err);

	if (rc < 0)
		return rc;
	rc = session_map_file(path, &f.file.data, &f.file.size, err);
	free(path);
	if (rc < 0)
		return rc;
	if (module_is_relocatable(f.file.data, f.file.size)) {
		f.path = text;
		set->module[set->modules++] = f;
		return f.has_text ? link_module(&set->module[set->modules - 1], err) : 0;
	}
	if (set->vmlinux.data) {
		munmap((void *)f.file.data, f.file.size);
		return err_set(err, EINVAL, "--symbols %s: there is a kernel's file already, and this is no module",
			       text);
	}
	set->vmlinux = f.file;
	return check_build(text, &f.file, kernel, err);
}

int symset_open(struct symset **out, const struct options *o, const struct guest_image *image, struct err *err)
{
	struct symset *set = calloc(1, sizeof(*set));
	struct guest_image kernel = *image;
	struct mapped file;
	int rc;

	*out = NULL;
	if (!set)
		return err_set(err, ENOMEM, "out of memory for symbols");
	rc = loader_unpack(&kernel, &set->unpacked, err);
	for (size_t i = 0; i < o->symbols && rc == 0; i++)
		rc = add_file(set, o->symbol_file[i], &kernel, err);
	file = set->vmlinux.data ? set->vmlinux : (struct mapped){kernel.kernel, kernel.kernel_size};
	if (rc == 0)
		rc = symbols_open(file.data, file.size, &set->kernel, err);
	if (rc < 0) {
		symset_close(set);
		return rc;
	}
	*out = set;
	return 0;
}

void symset_close(struct symset *set)
{
	if (!set)
		return;
	for (size_t i = 0; i < set->modules; i++) {
		unlink_module(&set->module[i]);
		munmap((void *)set->module[i].file.data, set->module[i].file.size);
	}
	symbols_close(set->kernel);
	if (set->vmlinux.data)
		munmap((void *)set->vmlinux.data, set->vmlinux.size);
	free(set->unpacked);
	free(set);
}

void symset_find_slide(struct symset *set, const struct machine *m)
{
	uint64_t slide;

	symbols_slide(set->kernel, 0);
	if (!slide_find(set->kernel, m, &slide))
		slide = set->slide;
	else if (slide != set->slide)
		fprintf(stderr, "hindsight: the kernel runs 0x%" PRIx64 " above where its file says\n", slide);
	set->slide = slide;
	symbols_slide(set->kernel, slide);
}

void symset_find_modules(struct symset *set, const struct machine *m)
{
	struct kvm_sregs sregs;
	struct err err;

	for (size_t i = 0; i < set->modules; i++) {
		struct module_file *f = &set->module[i];
		int rc;

		if (f->has_text)
			continue;
		unlink_module(f);
		rc = vcpu_get_sregs(&m->vcpu[0], &sregs, &err);
		if (rc == 0)
			rc = module_find(f->file.data, f->file.size, m->mem, &sregs, set->kernel, &f->text, &err);
		if (rc == 0)
			rc = link_module(f, &err);
		if (rc < 0)
			fprintf(stderr, "hindsight: no names from %s: %s\n", f->path, err.text);
	}
}

/* The file that knows the address; the kernel's if none does. */
static struct symbols *file_of(const struct symset *set, gva_t addr)
{
	for (size_t i = 0; i < set->modules; i++) {
		if (symbols_find(set->module[i].symbols, addr, NULL, NULL, NULL))
			return set->module[i].symbols;
	}
	return set->kernel;
}

bool symset_find(const struct symset *set, gva_t addr, const char **name, uint64_t *offset, uint64_t *size)
{
	return set && symbols_find(file_of(set, addr), addr, name, offset, size);
}

void symset_format(const struct symset *set, gva_t addr, char *out, size_t n)
{
	symbols_format(set ? file_of(set, addr) : NULL, addr, out, n);
}
