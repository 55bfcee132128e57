/* The root key and what it seals first: the root record, the epoch beside the counter, the pins. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

#define ROOTKEY_CHECK 16u
#define WRAPPED_MAX 4096u
#define ROOT_COUNTED 1u

static const struct csm_bin root_name = {(const uint8_t *)"root", 4};
static const struct csm_bin rootkey_name = {(const uint8_t *)"rootkey", 7};

static void root_encode(const struct root *root, uint8_t p[static ROOT_PLAIN])
{
	memset(p, 0, ROOT_PLAIN);
	put32(p, root->schema);
	put32(p + 4, root->counted ? ROOT_COUNTED : 0);
	put64(p + 8, root->epoch);
	put64(p + 16, root->generation);
	put64(p + 24, root->scopes);
	memcpy(p + 32, root->sum, SUM_LEN);
	memcpy(p + 64, root->set_key, KEY_LEN);
	memcpy(p + 96, root->pins, SUM_LEN);
	put64(p + 128, root->n_keys);
	put64(p + 136, root->n_domains);
	put64(p + 144, root->n_secrets);
	put64(p + 152, root->audit_seq);
	memcpy(p + 160, root->audit_head, sizeof(root->audit_head));
	put64(p + 192, root->created);
}

static void root_decode(const uint8_t p[static ROOT_PLAIN], struct root *root)
{
	*root = (struct root){
		.schema = get32(p),
		.epoch = get64(p + 8),
		.generation = get64(p + 16),
		.scopes = get64(p + 24),
		.n_keys = get64(p + 128),
		.n_domains = get64(p + 136),
		.n_secrets = get64(p + 144),
		.audit_seq = get64(p + 152),
		.created = get64(p + 192),
		.counted = (get32(p + 4) & ROOT_COUNTED) != 0,
	};
	memcpy(root->sum, p + 32, SUM_LEN);
	memcpy(root->set_key, p + 64, KEY_LEN);
	memcpy(root->pins, p + 96, SUM_LEN);
	memcpy(root->audit_head, p + 160, sizeof(root->audit_head));
}

int store_root_read(struct csm_store *s, MDB_txn *txn, struct aead *a, struct root *ret)
{
	CSM_WIPED(plain, ROOT_PLAIN);
	struct csm_bin v;
	struct rec rec;
	int r;

	r = store_get(txn, s->meta, root_name, &v);
	if (r != 0)
		return r == CSM_ENOT_FOUND ? CSM_ETAMPERED : r;
	if ((r = rec_parse(v, REC_ROOT, &rec)) != 0)
		return r;
	if (rec_plain_len(&rec) != ROOT_PLAIN || rec.clear.n != 0)
		return CSM_ETAMPERED;
	if ((r = rec_open(a, &s->sub->root, &rec, root_name, plain)) != 0)
		return r;
	if (get32(plain) != s->schema)
		return CSM_ETAMPERED;
	root_decode(plain, ret);
	return 0;
}

int store_root_write(struct csm_store *s, MDB_txn *txn, struct aead *a, struct root *root)
{
	CSM_WIPED(plain, ROOT_PLAIN);
	uint8_t value[ROOT_VALUE];
	int r;

	root->schema = STORE_SCHEMA;
	root->generation++;
	root_encode(root, plain);
	rec_header(value, REC_ROOT, (uint64_t)time(NULL), NULL, 0);
	r = rec_seal(a, &s->sub->root, REC_ROOT, root_name, value, HDR_LEN, (struct csm_bin){plain, ROOT_PLAIN});
	if (r != 0)
		return r;
	return store_put(s, txn, s->meta, root_name, (struct csm_bin){value, sizeof(value)});
}

/* The root key is needed no longer than this: what is used afterwards are the subkeys. */
static int derive_subkeys(struct csm_store *s, const uint8_t *key, uint8_t check[static ROOTKEY_CHECK])
{
	CSM_WIPED(k, KEY_LEN);
	CSM_WIPED(top, sizeof(struct prk));
	struct prk *prk = (struct prk *)top;

	s->sub = sodium_malloc(sizeof(*s->sub));
	if (s->sub == NULL)
		return CSM_ENOMEM;
	prk_init(prk, key);
	prk_label_key(prk, "scope", k);
	prk_init(&s->sub->scope, k);
	prk_label_key(prk, "root", k);
	prk_init(&s->sub->root, k);
	prk_label_key(prk, "request", k);
	prk_init(&s->sub->request, k);
	prk_label_key(prk, "journal", k);
	prk_init(&s->sub->journal, k);
	s->journal.key = &s->sub->journal;
	prk_label_key(prk, "audit", s->sub->audit_seed);
	prk_label_key(prk, "node", s->sub->node);
	prk_label_key(prk, "check", k);
	memcpy(check, k, ROOTKEY_CHECK);
	(void)csm_lock_again(s->sub, sizeof(*s->sub));
	return sodium_mprotect_readonly(s->sub) == 0 ? 0 : CSM_ESYSTEM;
}

/* length of mode (1), mode, length of wrapped (2), wrapped, check (16) */
static int rootkey_put(struct csm_store *s, MDB_txn *txn, struct csm_bin wrapped, const uint8_t *check)
{
	size_t mode = strlen(s->mode), n = 1 + mode + 2 + wrapped.n + ROOTKEY_CHECK;
	uint8_t value[1 + UINT8_MAX + 2 + WRAPPED_MAX + ROOTKEY_CHECK], *p = value;

	if (mode > UINT8_MAX || wrapped.n > WRAPPED_MAX)
		return CSM_ETOO_LARGE;
	*p++ = (uint8_t)mode;
	memcpy(p, s->mode, mode);
	p += mode;
	put16(p, (uint16_t)wrapped.n);
	if (wrapped.n > 0)
		memcpy(p + 2, wrapped.p, wrapped.n);
	memcpy(p + 2 + wrapped.n, check, ROOTKEY_CHECK);
	return store_put(s, txn, s->meta, rootkey_name, (struct csm_bin){value, n});
}

struct rootkey {
	struct csm_str mode;
	struct csm_bin wrapped;
	const uint8_t *check;
};

static int rootkey_parse(struct csm_bin v, struct rootkey *ret)
{
	size_t mode, wrapped;

	if (v.n < 1)
		return CSM_ETAMPERED;
	mode = v.p[0];
	if (v.n < 1 + mode + 2)
		return CSM_ETAMPERED;
	wrapped = get16(v.p + 1 + mode);
	if (v.n != 1 + mode + 2 + wrapped + ROOTKEY_CHECK)
		return CSM_ETAMPERED;
	*ret = (struct rootkey){
		.mode = {(const char *)v.p + 1, mode},
		.wrapped = {v.p + 1 + mode + 2, wrapped},
		.check = v.p + 1 + mode + 2 + wrapped,
	};
	return 0;
}

int store_root_mode(struct csm_store *s, MDB_txn *txn, char **ret)
{
	struct rootkey rk;
	struct csm_bin v;
	char *mode;
	int r;

	if ((r = store_get(txn, s->meta, rootkey_name, &v)) != 0 || (r = rootkey_parse(v, &rk)) != 0)
		return r;
	mode = strndup(rk.mode.p, rk.mode.n);
	if (mode == NULL)
		return CSM_ENOMEM;
	*ret = mode;
	return 0;
}

int store_root_key_put(struct csm_store *s, MDB_txn *txn, struct csm_bin wrapped)
{
	uint8_t check[ROOTKEY_CHECK];
	struct rootkey rk;
	struct csm_bin v;
	int r;

	if (wrapped.n == 0)
		return CSM_EINVALID;
	if ((r = store_get(txn, s->meta, rootkey_name, &v)) != 0 || (r = rootkey_parse(v, &rk)) != 0)
		return r;
	memcpy(check, rk.check, sizeof(check));
	return rootkey_put(s, txn, wrapped, check);
}

/* Both for any thread: a read transaction of their own. */
static int rootkey_read(struct csm_store *s, MDB_txn **txn, struct rootkey *rk)
{
	struct csm_bin v;
	int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, txn), r;

	if (rc != 0)
		return store_err(rc);
	if ((r = store_get(*txn, s->meta, rootkey_name, &v)) == 0)
		r = rootkey_parse(v, rk);
	if (r != 0)
		mdb_txn_abort(*txn);
	return r;
}

int csm_store_root_wrapped(struct csm_store *s, uint8_t *p, size_t *len)
{
	struct rootkey rk = {0};
	MDB_txn *txn;
	int r = rootkey_read(s, &txn, &rk);

	if (r != 0)
		return r;
	r = rk.wrapped.n > *len ? CSM_ETOO_LARGE : 0;
	if (r == 0) {
		*len = rk.wrapped.n;
		if (*len > 0)
			memcpy(p, rk.wrapped.p, *len);
	}
	mdb_txn_abort(txn);
	return r;
}

int csm_store_root_check(struct csm_store *s, const uint8_t key[static 32])
{
	CSM_WIPED(k, KEY_LEN);
	CSM_WIPED(top, sizeof(struct prk));
	struct rootkey rk = {0};
	MDB_txn *txn;
	int r = rootkey_read(s, &txn, &rk);

	if (r != 0)
		return r;
	prk_init((struct prk *)top, key);
	prk_label_key((struct prk *)top, "check", k);
	r = sodium_memcmp(k, rk.check, ROOTKEY_CHECK) == 0 ? 0 : CSM_EINVALID;
	mdb_txn_abort(txn);
	return r;
}

int store_root_key_make(struct csm_store *s, MDB_txn *txn)
{
	uint8_t wrapped[WRAPPED_MAX], check[ROOTKEY_CHECK];
	struct csm_plugin_out out = {.p = wrapped, .cap = sizeof(wrapped)};
	uint8_t *key = sodium_malloc(KEY_LEN);
	int r = CSM_ENOMEM;

	if (key == NULL)
		return r;
	if (s->root.wrap != NULL) {
		randombytes_buf(key, KEY_LEN);
		r = s->root.wrap(s->root.arg, key, &out);
	} else {
		r = s->root.unwrap(s->root.arg, NULL, 0, key);
	}
	if (r != 0) {
		store_why(s, "the root key cannot be made (%s)", csm_err_text(r));
		goto out;
	}
	if ((r = derive_subkeys(s, key, check)) != 0)
		goto out;
	r = rootkey_put(s, txn, (struct csm_bin){wrapped, out.len}, check);
out:
	sodium_free(key);
	return r;
}

int store_root_key_get(struct csm_store *s, MDB_txn *txn)
{
	uint8_t *key = NULL, check[ROOTKEY_CHECK];
	struct rootkey rk;
	struct csm_bin v;
	int r;

	if ((r = store_get(txn, s->meta, rootkey_name, &v)) != 0 || (r = rootkey_parse(v, &rk)) != 0) {
		store_why(s, "the record of the root key is missing or damaged");
		return r == CSM_ENOT_FOUND ? CSM_ETAMPERED : r;
	}
	if (!csm_str_eq(rk.mode, s->mode)) {
		store_why(s, "the store was made with root_key: %.*s, the configuration says %s", (int)rk.mode.n,
			rk.mode.p, s->mode);
		return CSM_EINVALID;
	}
	key = sodium_malloc(KEY_LEN);
	if (key == NULL)
		return CSM_ENOMEM;
	if (s->root.recovery != NULL) {
		memcpy(key, s->root.recovery->key, KEY_LEN);
		r = 0;
	} else {
		r = s->root.unwrap(s->root.arg, rk.wrapped.p, rk.wrapped.n, key);
	}
	if (r != 0) {
		if (r == CSM_EDENIED)
			store_why(s, "the root key is refused by its PCR policy");
		else
			store_why(s, "the root key cannot be had (%s)", csm_err_text(r));
		goto out;
	}
	if ((r = derive_subkeys(s, key, check)) != 0)
		goto out;
	if (sodium_memcmp(check, rk.check, ROOTKEY_CHECK) != 0) {
		store_why(s, "this is not the root key that the store was made with");
		r = CSM_EINVALID;
		goto out;
	}
	r = s->root.recovery != NULL ? rootkey_put(s, txn, s->root.recovery->wrapped, check) : 0;
out:
	sodium_free(key);
	return r;
}

/* ---- the counter ---- */

int store_root_counter_follow(struct csm_store *s)
{
	bool again = s->counter_behind;
	uint64_t nv = 0;

	s->counter_behind = false;
	if (s->root.counter_increment == NULL || s->counter >= s->epoch)
		return 0;
	s->counter_behind = true;
	s->counter_tried = store_monotonic();
	/* The answer that failed may have been to an increment that was made: a second one would leave the
	 * committed epoch behind the counter, as in an older store. */
	if (again && s->root.counter_read(s->root.arg, &nv) != 0)
		return CSM_EUNAVAILABLE;
	if (nv < s->epoch && (s->root.counter_increment(s->root.arg, &nv) != 0 || nv < s->epoch))
		return CSM_EUNAVAILABLE;
	s->counter = nv;
	s->counter_behind = false;
	return 0;
}

bool store_root_epoch_next(const struct csm_store *s, struct root *root)
{
	if (s->root.counter_increment != NULL) {
		root->epoch = s->counter + 1;
		root->counted = true;
		return true;
	}
	if (root->counted)
		return false;
	root->epoch++;
	return true;
}

int csm_store_node_secret(struct csm_store *s, const char *name, uint8_t out[static 32])
{
	CSM_WIPED(state, sizeof(struct prk));
	struct prk *prk = (struct prk *)state;

	if (!s->ready)
		return CSM_EUNAVAILABLE;
	prk_init(prk, s->sub->node);
	prk_label_key(prk, name, out);
	return 0;
}
