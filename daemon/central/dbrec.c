#include <sodium.h>
#include <string.h>
#include "daemon/central/dbrec.h"

#define FORM 1u
#define HEAD 2u

#define NUMBER(type, s, m, max) {type, offsetof(struct s, m), 0, max}
#define BYTES(type, s, m, max) {type, offsetof(struct s, m), 0, max}
#define LIST(s, m, n, max) {REC_STRS, offsetof(struct s, m), offsetof(struct s, n), max}
#define DEF(name, kind, s) \
	const struct rec_def rec_##name = {kind, sizeof(struct s), sizeof(name##_fields) / sizeof(name##_fields[0]), name##_fields}

#define SHORT_MAX 512u
#define TEXT_MAX 4096u
#define DER_MAX (64u * 1024u)

static const struct rec_field schema_fields[] = {NUMBER(REC_U64, rec_schema, version, 0)};
DEF(schema, REC_SCHEMA, rec_schema);

static const struct rec_field ref_fields[] = {NUMBER(REC_U64, rec_ref, issued, 0)};
DEF(ref, REC_REF, rec_ref);

/* Without the certificate itself, which has a row of its own. */
static const struct rec_field cert_fields[] = {
	BYTES(REC_BIN, db_cert, serial, DB_SERIAL_MAX),
	BYTES(REC_STR, db_cert, issuer, SHORT_MAX),
	BYTES(REC_STR, db_cert, profile, SHORT_MAX),
	BYTES(REC_STR, db_cert, role, SHORT_MAX),
	BYTES(REC_STR, db_cert, requester, SHORT_MAX),
	BYTES(REC_STR, db_cert, node, SHORT_MAX),
	BYTES(REC_STR, db_cert, subject, TEXT_MAX),
	LIST(db_cert, sans, n_sans, TEXT_MAX),
	BYTES(REC_BIN, db_cert, spki_sha256, 32),
	NUMBER(REC_U64, db_cert, not_before, 0),
	NUMBER(REC_U64, db_cert, not_after, 0),
	NUMBER(REC_U64, db_cert, issued, 0),
	NUMBER(REC_INT, db_cert, state, DB_REVOKED),
	NUMBER(REC_U64, db_cert, revoked, 0),
	NUMBER(REC_INT, db_cert, reason, 255),
	BYTES(REC_BIN, db_cert, renews, DB_SERIAL_MAX),
};
_Static_assert(sizeof(enum db_state) == sizeof(int), "kept as an int");
DEF(cert, REC_CERT, db_cert);

static const struct rec_field der_fields[] = {BYTES(REC_BIN, rec_bytes, v, DER_MAX)};
DEF(der, REC_DER, rec_bytes);

static const struct rec_field revoked_fields[] = {
	NUMBER(REC_U64, rec_revoked, at, 0),
	NUMBER(REC_U64, rec_revoked, not_after, 0),
	NUMBER(REC_INT, rec_revoked, reason, 255),
};
DEF(revoked, REC_REVOKED, rec_revoked);

static const struct rec_field token_fields[] = {
	BYTES(REC_FIXED, db_token, id, DB_TOKEN_ID_LEN),
	BYTES(REC_FIXED, db_token, hash, 32),
	LIST(db_token, names, n_names, TEXT_MAX),
	NUMBER(REC_BOOL, db_token, any_name, 1),
	BYTES(REC_STR, db_token, profile, SHORT_MAX),
	BYTES(REC_STR, db_token, role, SHORT_MAX),
	NUMBER(REC_U64, db_token, created, 0),
	NUMBER(REC_U64, db_token, expires, 0),
	NUMBER(REC_U64, db_token, uses, 0),
	NUMBER(REC_U64, db_token, used, 0),
	BYTES(REC_STR, db_token, by, SHORT_MAX),
};
DEF(token, REC_TOKEN, db_token);

static const struct rec_field token_ref_fields[] = {BYTES(REC_BIN, rec_bytes, v, DB_TOKEN_ID_LEN)};
DEF(token_ref, REC_TOKEN_REF, rec_bytes);

static const struct rec_field replay_fields[] = {
	BYTES(REC_BIN, rec_replay, request_hash, 32),
	BYTES(REC_BIN, rec_replay, serial, DB_SERIAL_MAX),
	NUMBER(REC_U64, rec_replay, at, 0),
};
DEF(replay, REC_REPLAY, rec_replay);

static const struct rec_field node_fields[] = {BYTES(REC_BIN, rec_bytes, v, DB_HOLDS_BYTES)};
DEF(node, REC_NODE, rec_bytes);

static const struct rec_field value_fields[] = {BYTES(REC_BIN, rec_bytes, v, 1024u * 1024u)};
DEF(value, REC_VALUE, rec_bytes);

static const struct rec_field event_fields[] = {
	NUMBER(REC_U64, db_event, at, 0),
	BYTES(REC_STR, db_event, what, SHORT_MAX),
	BYTES(REC_STR, db_event, object, TEXT_MAX),
	BYTES(REC_STR, db_event, by, SHORT_MAX),
};
DEF(event, REC_EVENT, db_event);

static const struct rec_field usage_fields[] = {
	BYTES(REC_STR, db_usage, node, SHORT_MAX),
	BYTES(REC_STR, db_usage, key, SHORT_MAX),
	BYTES(REC_BIN, db_usage, spki_sha256, 32),
	NUMBER(REC_U64, db_usage, from, 0),
	NUMBER(REC_U64, db_usage, to, 0),
	NUMBER(REC_U64, db_usage, signatures, 0),
	NUMBER(REC_U64, db_usage, last_used, 0),
	BYTES(REC_STR, db_usage, program, TEXT_MAX),
	BYTES(REC_STR, db_usage, identity, TEXT_MAX),
};
DEF(usage, REC_USAGE, db_usage);

static const struct rec_field request_fields[] = {
	BYTES(REC_FIXED, db_request, id, DB_REQUEST_ID_LEN),
	NUMBER(REC_INT, db_request, state, DB_ISSUED),
	NUMBER(REC_BOOL, db_request, renewal, 1),
	BYTES(REC_STR, db_request, who, SHORT_MAX),
	BYTES(REC_STR, db_request, requester, SHORT_MAX),
	BYTES(REC_STR, db_request, as, TEXT_MAX),
	BYTES(REC_STR, db_request, profile, SHORT_MAX),
	BYTES(REC_STR, db_request, subject, TEXT_MAX),
	LIST(db_request, sans, n_sans, TEXT_MAX),
	BYTES(REC_BIN, db_request, csr, DER_MAX),
	BYTES(REC_BIN, db_request, renews, DB_SERIAL_MAX),
	NUMBER(REC_U64, db_request, ttl, 0),
	NUMBER(REC_U64, db_request, created, 0),
	NUMBER(REC_U64, db_request, expires, 0),
	BYTES(REC_STR, db_request, idempotency, SHORT_MAX),
	NUMBER(REC_U64, db_request, decided, 0),
	BYTES(REC_STR, db_request, decided_by, SHORT_MAX),
	BYTES(REC_STR, db_request, reason, TEXT_MAX),
	BYTES(REC_BIN, db_request, serial, DB_SERIAL_MAX),
};
_Static_assert(sizeof(enum db_request_state) == sizeof(int), "kept as an int");
DEF(request, REC_REQUEST, db_request);

/* ---- the tag ---- */

void rec_key_init(struct rec_key *k, const uint8_t key[static DB_KEY_LEN])
{
	static const char label[] = "csm-server rows 1", secrets[] = "csm-server tokens 1";
	uint8_t sub[32];
	struct prk top;

	prk_init(&top, key);
	prk_mac(&top, &(struct part){label, sizeof(label)}, 1, sub);
	prk_init(&k->rows, sub);
	prk_mac(&top, &(struct part){secrets, sizeof(secrets)}, 1, sub);
	prk_init(&k->secrets, sub);
	sodium_memzero(sub, sizeof(sub));
	sodium_memzero(&top, sizeof(top));
}

void rec_key_engine(const uint8_t key[static DB_KEY_LEN], uint8_t ret[static 32])
{
	static const char label[] = "csm-server journal 1";
	struct prk top;

	prk_init(&top, key);
	prk_mac(&top, &(struct part){label, sizeof(label)}, 1, ret);
	sodium_memzero(&top, sizeof(top));
}

void rec_secret(const struct rec_key *k, struct csm_bin of, uint8_t ret[static 32])
{
	prk_mac(&k->secrets, &(struct part){of.p, of.n}, 1, ret);
}

static void tag(const struct rec_key *k, struct csm_bin at, struct csm_bin row, uint8_t out[static REC_TAG_LEN])
{
	const uint8_t n[2] = {(uint8_t)(at.n >> 8), (uint8_t)at.n};
	const struct part parts[] = {{n, sizeof(n)}, {at.p, at.n}, {row.p, row.n}};
	uint8_t all[32];

	prk_mac(&k->rows, parts, 3, all);
	memcpy(out, all, REC_TAG_LEN);
}

/* ---- writing ---- */

static int put_number(struct csm_buf *b, uint64_t v, size_t bytes)
{
	uint8_t p[8];

	for (size_t i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
	return csm_buf_put(b, p, bytes);
}

static int put_bytes(struct csm_buf *b, const void *p, size_t n, size_t max)
{
	int r;

	if (n > max)
		return CSM_ETOO_LARGE;
	if ((r = put_number(b, n, 4)) != 0)
		return r;
	return n == 0 ? 0 : csm_buf_put(b, p, n);
}

static int put_list(const struct rec_field *f, const uint8_t *in, struct csm_buf *b)
{
	const struct csm_str *v = *(const struct csm_str *const *)(const void *)(in + f->off);
	size_t n = *(const size_t *)(const void *)(in + f->off_n);
	int r;

	if (n > REC_STRS_MAX)
		return CSM_ETOO_LARGE;
	r = put_number(b, n, 4);
	for (size_t i = 0; i < n && r == 0; i++)
		r = put_bytes(b, v[i].p, v[i].n, f->max);
	return r;
}

static int put_field(const struct rec_field *f, const uint8_t *in, struct csm_buf *b)
{
	const void *p = in + f->off;
	uint64_t n;

	switch (f->type) {
	case REC_U64:
		return put_number(b, *(const uint64_t *)p, 8);
	case REC_INT:
	case REC_BOOL:
		n = f->type == REC_BOOL ? (uint64_t)*(const bool *)p : (uint64_t)*(const int *)p;
		return n > f->max ? CSM_EINVALID : put_number(b, n, 8);
	case REC_STR:
		return put_bytes(b, ((const struct csm_str *)p)->p, ((const struct csm_str *)p)->n, f->max);
	case REC_BIN:
		return put_bytes(b, ((const struct csm_bin *)p)->p, ((const struct csm_bin *)p)->n, f->max);
	case REC_STRS:
		return put_list(f, in, b);
	case REC_FIXED:
		return csm_buf_put(b, p, f->max);
	}
	return CSM_EINTERNAL;
}

int rec_put(const struct rec_key *k, const struct rec_def *def, struct csm_bin at, const void *in, struct csm_buf *b)
{
	const uint8_t head[HEAD] = {FORM, (uint8_t)def->kind};
	uint8_t mac[REC_TAG_LEN];
	size_t before = b->len;
	int r = csm_buf_put(b, head, sizeof(head));

	for (size_t i = 0; i < def->n && r == 0; i++)
		r = put_field(&def->fields[i], in, b);
	if (r != 0)
		return r;
	tag(k, at, (struct csm_bin){csm_buf_ptr(b) + before, b->len - before}, mac);
	return csm_buf_put(b, mac, sizeof(mac));
}

/* ---- reading ---- */

static bool take_number(struct csm_bin *in, size_t bytes, uint64_t *ret)
{
	uint64_t v = 0;

	if (in->n < bytes)
		return false;
	for (size_t i = 0; i < bytes; i++)
		v = v << 8 | in->p[i];
	in->p += bytes;
	in->n -= bytes;
	*ret = v;
	return true;
}

static bool take_bytes(struct csm_bin *in, size_t max, struct csm_bin *ret)
{
	uint64_t n;

	if (!take_number(in, 4, &n) || n > max || n > in->n)
		return false;
	*ret = (struct csm_bin){in->p, (size_t)n};
	in->p += n;
	in->n -= (size_t)n;
	return true;
}

static int take_list(const struct rec_field *f, struct csm_bin *in, struct csm_pool *pool, uint8_t *out)
{
	struct csm_str *v = NULL;
	struct csm_bin one;
	uint64_t n;

	/* Each takes its length at least: a count that cannot be is refused before memory is taken for it. */
	if (!take_number(in, 4, &n) || n > REC_STRS_MAX || n > in->n / 4)
		return CSM_ETAMPERED;
	if (n > 0 && (pool == NULL || csm_pool_full(pool, n * sizeof(*v))))
		return CSM_ETOO_LARGE;
	if (n > 0 && (v = csm_pool_alloc(pool, n * sizeof(*v))) == NULL)
		return CSM_ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (!take_bytes(in, f->max, &one))
			return CSM_ETAMPERED;
		v[i] = (struct csm_str){(const char *)one.p, one.n};
	}
	*(const struct csm_str **)(void *)(out + f->off) = v;
	*(size_t *)(void *)(out + f->off_n) = (size_t)n;
	return 0;
}

static int take_field(const struct rec_field *f, struct csm_bin *in, struct csm_pool *pool, uint8_t *out)
{
	void *p = out + f->off;
	struct csm_bin bytes;
	uint64_t n;

	switch (f->type) {
	case REC_U64:
		return take_number(in, 8, p) ? 0 : CSM_ETAMPERED;
	case REC_INT:
	case REC_BOOL:
		if (!take_number(in, 8, &n) || n > f->max)
			return CSM_ETAMPERED;
		if (f->type == REC_BOOL)
			*(bool *)p = n != 0;
		else
			*(int *)p = (int)n;
		return 0;
	case REC_STR:
	case REC_BIN:
		if (!take_bytes(in, f->max, &bytes))
			return CSM_ETAMPERED;
		if (f->type == REC_STR)
			*(struct csm_str *)p = (struct csm_str){(const char *)bytes.p, bytes.n};
		else
			*(struct csm_bin *)p = bytes;
		return 0;
	case REC_STRS:
		return take_list(f, in, pool, out);
	case REC_FIXED:
		if (in->n < f->max)
			return CSM_ETAMPERED;
		memcpy(p, in->p, f->max);
		in->p += f->max;
		in->n -= f->max;
		return 0;
	}
	return CSM_EINTERNAL;
}

int rec_get(const struct rec_key *k, const struct rec_def *def, struct csm_bin at, struct csm_bin row, struct csm_pool *pool, void *out)
{
	_Alignas(16) uint8_t mem[512] = {0};
	uint8_t mac[REC_TAG_LEN];
	struct csm_bin in;
	int r;

	if (def->size > sizeof(mem))
		return CSM_EINTERNAL;
	if (row.n < HEAD + REC_TAG_LEN || row.p[0] != FORM || row.p[1] != def->kind)
		return CSM_ETAMPERED;
	if (k != NULL) {
		tag(k, at, (struct csm_bin){row.p, row.n - REC_TAG_LEN}, mac);
		if (sodium_memcmp(mac, row.p + row.n - REC_TAG_LEN, REC_TAG_LEN) != 0)
			return CSM_ETAMPERED;
	}
	in = (struct csm_bin){row.p + HEAD, row.n - HEAD - REC_TAG_LEN};
	for (size_t i = 0; i < def->n; i++)
		if ((r = take_field(&def->fields[i], &in, pool, mem)) != 0)
			return r;
	if (in.n != 0)
		return CSM_ETAMPERED;
	memcpy(out, mem, def->size);
	return 0;
}
