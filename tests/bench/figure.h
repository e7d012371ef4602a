/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Samples of a ratio, and a line of the table that shows them. */
#ifndef TESTS_BENCH_FIGURE_H
#define TESTS_BENCH_FIGURE_H

#include <stdbool.h>

#define SAMPLES_MAX 99
#define NO_BOUND -1.0

struct samples {
	unsigned n;
	double v[SAMPLES_MAX];
};

void samples_add(struct samples *s, double v);
/* Sorts. */
double median(struct samples *s);

void figure_print_header(void);
/* bound: or NO_BOUND. wall: NULL, or what stands in the column for wall time. Returns whether the
 * median is over the bound. */
bool figure_print(const char *name, double bound, struct samples *s, struct samples *wall);

#endif
