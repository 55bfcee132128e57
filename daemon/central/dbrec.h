/* Rows of csm-server's database as bytes: form (1) | kind (1) | fields in the order of their table | tag (16). Numbers are big-endian,
 * of 8 bytes; texts and bytes have their length (4) before them, lists of texts their count (4). The tag is the first half of
 * HMAC-SHA256 under the database's key over the row's key, form, kind and fields: a row that was changed, or moved to another key,
 * is CSM_ETAMPERED. Form 2 is for rows whose fields are sealed as well. */
#ifndef CSM_CENTRAL_DBREC_H
#define CSM_CENTRAL_DBREC_H

#include "daemon/central/db.h"
#include "daemon/svc/prk.h"

#define REC_TAG_LEN 16u
#define REC_STRS_MAX 1024u
#define DB_HOLDS_BYTES 960u /* of rec_node */

/* Never reused. */
enum rec_kind {
	REC_SCHEMA = 1,
	REC_REF = 2, /* where a certificate's row is */
	REC_CERT = 3,
	REC_DER = 4,
	REC_REVOKED = 5,
	REC_TOKEN = 6,
	REC_TOKEN_REF = 7,
	REC_REPLAY = 8,
	REC_VALUE = 9,
	REC_EVENT = 10,
	REC_USAGE = 11,
	REC_NODE = 12, /* who has a node's name */
	REC_REQUEST = 13,
};

enum rec_type { REC_U64, REC_INT, REC_BOOL, REC_STR, REC_BIN, REC_STRS, REC_FIXED };
struct rec_field {
	enum rec_type type;
	size_t off, off_n; /* off_n: of a list's count */
	size_t max;        /* REC_STR, REC_BIN, each of REC_STRS: bytes; REC_FIXED: how many; REC_INT: the highest; REC_BOOL: 1 */
};
struct rec_def {
	enum rec_kind kind;
	size_t size; /* of the structure */
	size_t n;
	const struct rec_field *fields;
};

/* What is there under subkeys of the database's key. */
struct rec_key {
	struct prk rows, secrets;
};
void rec_key_init(struct rec_key *k, const uint8_t key[static DB_KEY_LEN]);
/* What the engine gets: another key, derived from it. */
void rec_key_engine(const uint8_t key[static DB_KEY_LEN], uint8_t ret[static 32]);

/* 32 bytes that follow from the key and `of`, and tell nothing of tags. */
void rec_secret(const struct rec_key *k, struct csm_bin of, uint8_t ret[static 32]);

/* Append the row. CSM_ETOO_LARGE: a field is above its bound; CSM_EINVALID. */
CSM_MUST int rec_put(const struct rec_key *k, const struct rec_def *def, struct csm_bin at, const void *in, struct csm_buf *b);
/* *out (def->size bytes) is whole on success and untouched on failure; it borrows `row`, and lists are in the pool (NULL where there
 * are none). CSM_ETAMPERED, CSM_ENOMEM, CSM_ETOO_LARGE: the pool is used up. k NULL: the tag is not looked at, for what decides
 * nothing. */
CSM_MUST int rec_get(const struct rec_key *k, const struct rec_def *def, struct csm_bin at, struct csm_bin row, struct csm_pool *pool,
	void *out);

/* Rows that are not a structure of db.h. */
struct rec_schema {
	uint64_t version;
};
struct rec_ref {
	uint64_t issued;
};
struct rec_bytes {
	struct csm_bin v;
};
struct rec_revoked {
	uint64_t at, not_after;
	int reason;
};
struct rec_replay {
	struct csm_bin request_hash, serial;
	uint64_t at;
};
extern const struct rec_def rec_schema, rec_ref, rec_cert, rec_der, rec_revoked, rec_token, rec_token_ref, rec_replay, rec_value, rec_event,
	rec_usage, rec_node, rec_request;

#endif
