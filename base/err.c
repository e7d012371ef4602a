// SPDX-License-Identifier: GPL-3.0-or-later
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;

		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
	return -code;
}

int err_sys(struct err *err, int code, const char *fmt, ...)
{
	if (err) {
		va_list ap;
		size_t n;

		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
		n = strlen(err->text);
		snprintf(err->text + n, sizeof(err->text) - n, ": %s", strerror(code));
	}
	return -code;
}

int err_prefix(struct err *err, int code, const char *fmt, ...)
{
	if (err) {
		char old[ERR_TEXT_MAX];
		va_list ap;
		size_t n;

		memcpy(old, err->text, sizeof(old));
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
		n = strlen(err->text);
		snprintf(err->text + n, sizeof(err->text) - n, ": %s", old);
	}
	return code;
}
