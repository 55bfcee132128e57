#include <pthread.h>
#include <string.h>
#include "libclient/wire/msg.h"

/* A row is put together from two macros, since the rows of messages.def do not say which message
 * they belong to: FIELD_HEAD opens it with the structure, FIELD_TAIL closes it with the member. */
#define FIELD_HEAD(m) {.off = __builtin_offsetof(struct csm_msg_##m,
#define FIELD_TAIL(kind_, name_, presence_, max_, each_) \
	name_), .name = #name_, .name_len = sizeof(#name_) - 1, .kind = CSM_K_##kind_, \
	.presence = CSM_P_##presence_, .max = (max_), EACH_##kind_(each_)},
#define EACH_U64(each_) .each = (each_)
#define EACH_BOOL(each_) .each = (each_)
#define EACH_STR(each_) .each = (each_)
#define EACH_BIN(each_) .each = (each_)
#define EACH_STRS(each_) .each = (each_)
#define EACH_MAP(each_) .sub = CSM_DEF(each_)
#define EACH_MAPS(each_) .sub = CSM_DEF(each_)

/* The last row only keeps the array of a message without fields from being empty. */
#define FIELDS(m) static const struct csm_field fields_##m[] = {CSM_MSG_##m(FIELD_HEAD(m) FIELD_TAIL){.name = NULL}};
CSM_MESSAGES(FIELDS)

#define N_FIELDS(m) (sizeof(fields_##m) / sizeof(fields_##m[0]) - 1)
#define MSGDEF(m) {.name = #m, .size = sizeof(struct csm_msg_##m), .n_fields = N_FIELDS(m), .fields = fields_##m},
const struct csm_msgdef csm_msgdefs[CSM_MSGID__COUNT] = {CSM_MESSAGES(MSGDEF)};

/* The decoder marks the fields it has seen in one 64-bit word. */
#define FIELDS_FIT(m) _Static_assert(N_FIELDS(m) <= 64, "too many fields in " #m);
CSM_MESSAGES(FIELDS_FIT)

/* The words of methods.def's columns roles and flags, which are expressions. */
enum {
	PUBLIC = CSM_R_PUBLIC,
	ADMIN = CSM_R_ADMIN,
	ENROL = CSM_R_ENROL,
	IDENT = CSM_R_IDENT,
	DELIVER = CSM_R_DELIVER,
	PLUGHOST = CSM_R_PLUGHOST,
	ROLES = CSM_R_ROLES,
	MUTATES = CSM_F_MUTATES,
	SECRET = CSM_F_SECRET,
};

const struct csm_method csm_methods[CSM_M__COUNT] = {
#define X(sym, num, name_, perm_, states_, roles_, where_, req, res, flags_) \
	[CSM_M_##sym] = {.name = name_, .name_len = sizeof(name_) - 1, .number = num, .perm = CSM_PERM_##perm_, \
		.states = CSM_S_##states_, .roles = roles_, .where = CSM_W_##where_, .flags = flags_, \
		.request = CSM_DEF(req), .response = CSM_DEF(res)},
#include "proto-spec/methods.def"
#undef X
};

/* Open addressing; filled once, at the first look-up. A slot is a method's index and one, 0 if free. */
#define SLOTS 256u
_Static_assert(CSM_M__COUNT < SLOTS / 2, "the method table is too full");
static uint8_t slots[SLOTS];
static pthread_once_t slots_once = PTHREAD_ONCE_INIT;

static unsigned slot_of(const char *s, size_t n)
{
	const uint8_t *p = (const uint8_t *)s;

	return (unsigned)(n + 7u * p[0] + 31u * p[n / 2] + 61u * p[n - 1] + 127u * p[n * 3 / 4]) % SLOTS;
}

static void slots_fill(void)
{
	for (unsigned i = 0; i < CSM_M__COUNT; i++) {
		unsigned s = slot_of(csm_methods[i].name, csm_methods[i].name_len);

		while (slots[s] != 0)
			s = (s + 1) % SLOTS;
		slots[s] = (uint8_t)(i + 1);
	}
}

const struct csm_method *csm_method_find(struct csm_str name)
{
	const struct csm_method *m;

	if (name.n == 0)
		return NULL;
	(void)pthread_once(&slots_once, slots_fill);
	for (unsigned s = slot_of(name.p, name.n); slots[s] != 0; s = (s + 1) % SLOTS) {
		m = &csm_methods[slots[s] - 1];
		if (m->name_len == name.n && memcmp(m->name, name.p, name.n) == 0)
			return m;
	}
	return NULL;
}
