/* SPDX-License-Identifier: GPL-2.0 */
/* Results in KTAP, as kselftest prints them. The plan comes last: it is known then. */
#ifndef CONTRACT_KTAP_H
#define CONTRACT_KTAP_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static int ktap_count, ktap_failures;

static inline void ktap_note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("# ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	fflush(stdout);
}

static inline void ktap_result(int ok, const char *name)
{
	ktap_count++;
	if (!ok)
		ktap_failures++;
	printf("%s %d %s\n", ok ? "ok" : "not ok", ktap_count, name);
	fflush(stdout);
}

static inline int ktap_finish(void)
{
	printf("1..%d\n", ktap_count);
	return ktap_failures ? 1 : 0;
}

/* What keeps the test from making sense at all. */
static inline void ktap_bail(const char *why)
{
	printf("Bail out! %s: %m\n", why);
	exit(1);
}

#endif
