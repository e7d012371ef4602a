// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/bench/figure.h"

#include <stdio.h>
#include <stdlib.h>

void samples_add(struct samples *s, double v)
{
	if (s->n < SAMPLES_MAX)
		s->v[s->n++] = v;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double median(struct samples *s)
{
	qsort(s->v, s->n, sizeof(s->v[0]), compare_doubles);
	return s->n % 2 ? s->v[s->n / 2] : (s->v[s->n / 2 - 1] + s->v[s->n / 2]) / 2;
}

void figure_print_header(void)
{
	printf("%-38s %9s %9s %19s %9s  %s\n", "figure", "bound", "median", "min..max", "wall",
	       "verdict");
}

bool figure_print(const char *name, double bound, struct samples *s, struct samples *wall)
{
	char bound_text[16] = "-", range[32], wall_text[16] = "-";
	double mid = median(s);

	if (bound >= 0)
		snprintf(bound_text, sizeof(bound_text), "%.4g", bound);
	if (wall)
		snprintf(wall_text, sizeof(wall_text), "%.3f", median(wall));
	snprintf(range, sizeof(range), "%.3f..%.3f", s->v[0], s->v[s->n - 1]);
	printf("%-38s %9s %9.3f %19s %9s  %s\n", name, bound_text, mid, range, wall_text,
	       bound < 0      ? "info"
	       : mid <= bound ? "ok"
			      : "over");
	fflush(stdout);
	return bound >= 0 && mid > bound;
}
