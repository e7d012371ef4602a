/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Errors: a function that can fail returns 0 or a negative errno value and, when it fails, fills
 * the caller's struct err with one sentence a user can act on. Only main prints it.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define ERR_TEXT_MAX 512

struct err {
	char text[ERR_TEXT_MAX];
};

/*
 * Store the sentence and return -code (code is a positive errno value), so that a caller can write
 * `return err_set(err, ENOMEM, "...")`. Text longer than ERR_TEXT_MAX is cut. err may be NULL.
 */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As err_set, with ": strerror(code)" added: for failed system calls. */
int err_sys(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put "fmt: " before the sentence already in err; returns code unchanged (a negative errno). */
int err_prefix(struct err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
