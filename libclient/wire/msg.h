/* The messages of proto-spec/messages.def as C structures and field tables. */
#ifndef CSM_WIRE_MSG_H
#define CSM_WIRE_MSG_H

#include <stddef.h>
#include "libclient/base/buf.h"
#include "libclient/base/name.h"
#include "proto-spec/limits.h"
#include "proto-spec/messages.def"

struct csm_u64 {
	uint64_t v;
	bool set;
};
struct csm_bool {
	bool v;
	bool set;
};
struct csm_strs {
	struct csm_str *v;
	size_t n;
};

/* STR and BIN: p is NULL when absent (a present empty one has p != NULL).
 * STRS and MAPS: v and n; the arrays come from the pool on decoding, are the caller's on encoding.
 * MAP: a pointer, NULL when absent. */
#define CSM_MEMBER_U64(name, each) struct csm_u64 name;
#define CSM_MEMBER_BOOL(name, each) struct csm_bool name;
#define CSM_MEMBER_STR(name, each) struct csm_str name;
#define CSM_MEMBER_BIN(name, each) struct csm_bin name;
#define CSM_MEMBER_STRS(name, each) struct csm_strs name;
#define CSM_MEMBER_MAP(name, each) struct csm_msg_##each *name;
#define CSM_MEMBER_MAPS(name, each) struct { struct csm_msg_##each *v; size_t n; } name;
#define CSM_MEMBER(kind, name, presence, max, each) CSM_MEMBER_##kind(name, each)
#define CSM_MESSAGE_STRUCT(m) struct csm_msg_##m { CSM_MSG_##m(CSM_MEMBER) char end_; };
/* The order is that of the wire. NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
CSM_MESSAGES(CSM_MESSAGE_STRUCT)

enum csm_kind { CSM_K_U64, CSM_K_BOOL, CSM_K_STR, CSM_K_BIN, CSM_K_STRS, CSM_K_MAP, CSM_K_MAPS };
enum csm_presence { CSM_P_OPT, CSM_P_REQ };

struct csm_msgdef;
struct csm_field {
	const char *name;
	uint8_t name_len;
	uint8_t kind;     /* enum csm_kind */
	uint8_t presence; /* enum csm_presence */
	uint16_t off;     /* of the member in the structure */
	uint64_t max;
	uint32_t each;
	const struct csm_msgdef *sub;
};
struct csm_msgdef {
	const char *name;
	size_t size; /* of the structure */
	size_t n_fields;
	const struct csm_field *fields;
};

enum csm_message_id {
#define CSM_MESSAGE_ID(m) CSM_MSGID_##m,
	CSM_MESSAGES(CSM_MESSAGE_ID)
	CSM_MSGID__COUNT
};
extern const struct csm_msgdef csm_msgdefs[CSM_MSGID__COUNT];
#define CSM_DEF(m) (&csm_msgdefs[CSM_MSGID_##m])

/* Memory for the arrays of one decoded message: a bump allocator, emptied at once.
 * Bounded: decoding fails with CSM_ETOO_LARGE beyond `max`. */
struct csm_pool {
	uint8_t *p;
	size_t used;
	size_t cap;
	size_t max;
	void *more; /* chain of further chunks */
};
void csm_pool_init(struct csm_pool *pool, size_t max);
void csm_pool_reset(struct csm_pool *pool); /* all that was handed out is gone; may keep one chunk */
void csm_pool_free(struct csm_pool *pool);
void *csm_pool_alloc(struct csm_pool *pool, size_t n); /* zeroed; NULL beyond max or without memory */
bool csm_pool_full(const struct csm_pool *pool, size_t n); /* n bytes more would be beyond max */

/* What a decoder does with a field it does not know. */
enum csm_unknown { CSM_UNKNOWN_REFUSE, CSM_UNKNOWN_SKIP };

/* Decode one map. *out (def->size bytes) is whole on success, zeroed on failure, and borrows p.
 * On failure *bad names the field, of the innermost message ("" if none; of an unknown field a
 * slice of p): CSM_EUNSUPPORTED_FIELD, CSM_EINVALID (missing, wrong type, negative number, not
 * UTF-8), CSM_ETOO_LARGE (above max, or the pool is used up), CSM_ENOMEM, CSM_EPROTOCOL (not
 * MessagePack, a key that is no string, duplicate key, left over bytes: the connection must be
 * closed). The first failure is the one told. A duplicate among skipped fields is not looked for.
 * pool may be NULL where def has no arrays and no maps. */
CSM_MUST int csm_msg_decode(const struct csm_msgdef *def, struct csm_bin p, enum csm_unknown unknown,
	struct csm_pool *pool, void *out, struct csm_str *bad);
/* Append the map of *in. Absent optional fields are left out; a missing required STR or BIN is
 * encoded empty, U64 and BOOL as they are. */
CSM_MUST int csm_msg_encode(const struct csm_msgdef *def, const void *in, struct csm_buf *b);
/* Whether the field f of *msg has a value; arrays always have. */
bool csm_field_present(const struct csm_field *f, const void *msg);

/* The methods of proto-spec/methods.def. */
enum csm_method_id {
#define X(sym, num, name, perm, states, roles, where, req, res, flags) CSM_M_##sym,
#include "proto-spec/methods.def"
#undef X
	CSM_M__COUNT
};
enum csm_perm {
	CSM_PERM_OPEN = -1,
	CSM_PERM_ADMIN = -2,
#define X(sym, num, name, perm, states, roles, where, req, res, flags) CSM_PERM_##sym = CSM_M_##sym,
#include "proto-spec/methods.def"
#undef X
};
enum csm_where { CSM_W_LOOP, CSM_W_COMMIT, CSM_W_BACKEND, CSM_W_CONTROL, CSM_W_NONE };
enum csm_state { CSM_S_READY = 1, CSM_S_LOCKED = 2, CSM_S_ANY = 3 };
enum csm_role {
	CSM_R_PUBLIC = 1, CSM_R_ADMIN = 2, CSM_R_ENROL = 4, CSM_R_IDENT = 8, CSM_R_DELIVER = 16,
	CSM_R_PLUGHOST = 32, CSM_R_ROLES = 60,
};
enum csm_method_flag { CSM_F_MUTATES = 1, CSM_F_SECRET = 2 };

struct csm_method {
	const char *name;
	uint8_t name_len;
	uint16_t number;
	int16_t perm; /* enum csm_perm */
	uint8_t states, roles, where, flags;
	const struct csm_msgdef *request;
	const struct csm_msgdef *response;
};
extern const struct csm_method csm_methods[CSM_M__COUNT];
/* NULL if there is none of that name. */
const struct csm_method *csm_method_find(struct csm_str name);

#endif
