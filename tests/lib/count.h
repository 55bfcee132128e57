/* Full counts or short ones: see tests/README.md. */
#ifndef CSM_TESTS_COUNT_H
#define CSM_TESTS_COUNT_H

#include <stdbool.h>
#include <stdlib.h>

/* `make check-long`; an empty CSM_LONG is `make check`. */
static inline bool long_run(void)
{
	const char *s = getenv("CSM_LONG");

	return s != NULL && *s != '\0';
}

#endif
