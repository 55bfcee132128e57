/* What back ends remember: small records in the clear, since the one that keeps the root key recalls its own
 * before that key is there. The root record holds a set hash over them. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

static int pin_element(const struct root *root, struct csm_bin key, struct csm_bin v, uint8_t out[static SUM_LEN])
{
	struct prk prk;
	int r;

	prk_init(&prk, root->set_key);
	r = sum_element(&prk, REC_PIN, key, v, out);
	sodium_memzero(&prk, sizeof(prk));
	return r;
}

int store_pin_put(struct csm_store *s, MDB_txn *txn, struct root *root, const char *name, struct csm_bin v)
{
	uint8_t e[SUM_LEN], before[SUM_LEN];
	bool had = false;
	struct dbkey key;
	struct csm_bin old;
	int r;

	if ((r = dbkey_meta(&key, "pin:", name)) != 0)
		return r;
	if (root == NULL)
		return store_put(s, txn, s->meta, dbkey_bin(&key), v);
	r = store_get(txn, s->meta, dbkey_bin(&key), &old);
	if (r == 0) {
		had = true;
		r = pin_element(root, dbkey_bin(&key), old, before);
	}
	if (r != 0 && r != CSM_ENOT_FOUND)
		return r;
	if ((r = pin_element(root, dbkey_bin(&key), v, e)) != 0)
		return r;
	if ((r = store_put(s, txn, s->meta, dbkey_bin(&key), v)) != 0)
		return r;
	if (had)
		sum_sub(root->pins, before);
	sum_add(root->pins, e);
	return 0;
}

int store_pin_del(struct csm_store *s, MDB_txn *txn, struct root *root, const char *name)
{
	uint8_t e[SUM_LEN];
	struct dbkey key;
	struct csm_bin old;
	int r;

	if ((r = dbkey_meta(&key, "pin:", name)) != 0 || (r = store_get(txn, s->meta, dbkey_bin(&key), &old)) != 0 ||
		(r = pin_element(root, dbkey_bin(&key), old, e)) != 0 || (r = store_del(s, txn, s->meta, dbkey_bin(&key))) != 0)
		return r;
	sum_sub(root->pins, e);
	return 0;
}

int store_pins_sum(struct csm_store *s, MDB_txn *txn, const struct root *root, uint8_t out[static SUM_LEN])
{
	static const char prefix[] = "pin:";
	MDB_val k = {sizeof(prefix) - 1, (void *)prefix}, v;
	uint8_t sum[SUM_LEN] = {0}, e[SUM_LEN];
	MDB_cursor *cur;
	int rc, r;

	if ((rc = mdb_cursor_open(txn, s->meta, &cur)) != 0)
		return store_err(rc);
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		if (k.mv_size < sizeof(prefix) - 1 || memcmp(k.mv_data, prefix, sizeof(prefix) - 1) != 0)
			break;
		if ((r = pin_element(root, val_bin(&k), val_bin(&v), e)) != 0)
			goto out;
		sum_add(sum, e);
	}
	if (rc != 0 && rc != MDB_NOTFOUND) {
		r = store_err(rc);
		goto out;
	}
	memcpy(out, sum, SUM_LEN);
	r = 0;
out:
	mdb_cursor_close(cur);
	return r;
}

/* ---- remembered in memory, until a transaction takes it along ---- */

void store_early_done(struct csm_store *s, bool committed)
{
	pthread_mutex_lock(&s->mu);
	for (struct pin **at = &s->early, *p; (p = *at) != NULL;) {
		if (committed && p->taken) {
			*at = p->next;
			free(p);
			continue;
		}
		p->taken = false;
		at = &p->next;
	}
	pthread_mutex_unlock(&s->mu);
}

int store_early_pins(struct csm_store *s, MDB_txn *txn, struct root *root)
{
	int r = 0;

	pthread_mutex_lock(&s->mu);
	for (struct pin *p = s->early; p != NULL && r == 0; p = p->next) {
		r = store_pin_put(s, txn, root, p->name, (struct csm_bin){p->p, p->n});
		p->taken = true;
	}
	pthread_mutex_unlock(&s->mu);
	return r;
}

static struct pin **early_find(struct csm_store *s, const char *name)
{
	struct pin **p = &s->early;

	while (*p != NULL && strcmp((*p)->name, name) != 0)
		p = &(*p)->next;
	return p;
}

void store_early_forget(struct csm_store *s, const char *name)
{
	struct pin **at, *p;

	pthread_mutex_lock(&s->mu);
	at = early_find(s, name);
	p = *at;
	if (p != NULL)
		*at = p->next;
	free(p);
	pthread_mutex_unlock(&s->mu);
}

int csm_store_remember_now(struct csm_store *s, const char *name, const uint8_t *p, size_t len)
{
	size_t n = strlen(name);
	struct pin *pin, **at;

	if (n == 0 || n >= sizeof(pin->name) || len > PIN_MAX)
		return CSM_EINVALID;
	pin = malloc(sizeof(*pin) + len);
	if (pin == NULL)
		return CSM_ENOMEM;
	*pin = (struct pin){.n = len};
	memcpy(pin->name, name, n + 1);
	if (len > 0)
		memcpy(pin->p, p, len);
	pthread_mutex_lock(&s->mu);
	at = early_find(s, name);
	pin->next = *at != NULL ? (*at)->next : NULL;
	free(*at);
	*at = pin;
	s->early_new = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->mu);
	return 0;
}

static int give(const uint8_t *from, size_t n, uint8_t *p, size_t *len)
{
	if (n > *len)
		return CSM_ETOO_LARGE;
	if (n > 0)
		memcpy(p, from, n);
	*len = n;
	return 0;
}

int csm_store_recall(struct csm_store *s, const char *name, uint8_t *p, size_t *len)
{
	struct csm_bin v;
	struct dbkey k;
	MDB_txn *txn;
	struct pin *pin;
	int rc, r = CSM_ENOT_FOUND;

	pthread_mutex_lock(&s->mu);
	pin = *early_find(s, name);
	if (pin != NULL)
		r = give(pin->p, pin->n, p, len);
	pthread_mutex_unlock(&s->mu);
	if (pin != NULL)
		return r;
	if ((r = dbkey_meta(&k, "pin:", name)) != 0)
		return r;
	if ((rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn)) != 0)
		return store_err(rc);
	r = store_get(txn, s->meta, dbkey_bin(&k), &v);
	if (r == 0)
		r = give(v.p, v.n, p, len);
	mdb_txn_abort(txn);
	return r;
}

static int count_stored(struct csm_store *s, MDB_txn *txn, const struct dbkey *prefix, size_t *n)
{
	struct csm_bin want = dbkey_bin(prefix);
	MDB_val k = {want.n, (void *)(uintptr_t)want.p}, v;
	MDB_cursor *cur;
	int rc;

	if ((rc = mdb_cursor_open(txn, s->meta, &cur)) != 0)
		return store_err(rc);
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		if (k.mv_size < want.n || memcmp(k.mv_data, want.p, want.n) != 0)
			break;
		++*n;
	}
	mdb_cursor_close(cur);
	return rc == 0 || rc == MDB_NOTFOUND ? 0 : store_err(rc);
}

/* Those that wait for a transaction and are new. */
static int count_early(struct csm_store *s, MDB_txn *txn, const char *prefix, size_t *n)
{
	struct csm_bin old;
	struct dbkey k;
	int r = 0;

	for (struct pin *p = s->early; p != NULL && r == 0; p = p->next) {
		if (strncmp(p->name, prefix, strlen(prefix)) != 0)
			continue;
		if ((r = dbkey_meta(&k, "pin:", p->name)) == 0 && (r = store_get(txn, s->meta, dbkey_bin(&k), &old)) == CSM_ENOT_FOUND) {
			++*n;
			r = 0;
		}
	}
	return r;
}

int csm_store_recall_count(struct csm_store *s, const char *prefix, size_t *ret)
{
	struct dbkey k;
	MDB_txn *txn;
	size_t n = 0;
	int rc, r = dbkey_meta(&k, "pin:", prefix);

	if (r != 0)
		return r;
	/* First the lock: what is committed after the snapshot is still in the list then. */
	pthread_mutex_lock(&s->mu);
	if ((rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn)) != 0) {
		r = store_err(rc);
		goto out;
	}
	r = count_stored(s, txn, &k, &n);
	if (r == 0)
		r = count_early(s, txn, prefix, &n);
	mdb_txn_abort(txn);
	if (r == 0)
		*ret = n;
out:
	pthread_mutex_unlock(&s->mu);
	return r;
}
