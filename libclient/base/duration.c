#include "libclient/base/duration.h"

#include <stdio.h>
#include <string.h>

#define DAY UINT64_C(86400)

static const struct {
	const char *name;
	uint64_t seconds;
	bool told; /* in what is printed */
} units[] = {{"s", 1, true}, {"min", 60, true}, {"m", 60, false}, {"h", 3600, true}, {"d", DAY, true}, {"w", 7 * DAY, false},
	{"y", 365 * DAY, false}};
#define N_UNITS (sizeof(units) / sizeof(units[0]))

int csm_duration_parse(struct csm_str s, uint64_t max, uint64_t *ret)
{
	size_t digits = 0, i = 0;
	uint64_t v = 0;
	bool over = false;

	for (; digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9'; digits++)
		over |= __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(s.p[digits] - '0'), &v);
	while (i < N_UNITS && !csm_str_eq((struct csm_str){s.p + digits, s.n - digits}, units[i].name))
		i++;
	if (i == N_UNITS || digits == 0)
		return CSM_EINVALID;
	if (over || v > max / units[i].seconds)
		return CSM_ETOO_LARGE;
	*ret = v * units[i].seconds;
	return 0;
}

const char *csm_duration_text(uint64_t seconds, char buf[static CSM_DURATION_TEXT])
{
	size_t best = 0;

	for (size_t i = 1; i < N_UNITS && seconds > 0; i++)
		if (units[i].told && seconds % units[i].seconds == 0)
			best = i;
	(void)snprintf(buf, CSM_DURATION_TEXT, "%llu%s", (unsigned long long)(seconds / units[best].seconds), units[best].name);
	return buf;
}
