/* The record of a scope (a namespace's keys and sealed data, or a domain's secrets): its key-encryption
 * keys and the set hash over its records. */
#include <sodium.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

void store_scope_new(struct scope *sc, uint64_t now)
{
	*sc = (struct scope){.created = now, .n_keks = 1};
	randombytes_buf(sc->set_key, sizeof(sc->set_key));
	randombytes_buf(sc->kek[0].id, sizeof(sc->kek[0].id));
	randombytes_buf(sc->kek[0].key, sizeof(sc->kek[0].key));
	sc->kek[0].created = now;
}

const struct kek *store_scope_kek(const struct scope *sc, const uint8_t id[static KEK_ID_LEN])
{
	for (uint32_t i = 0; i < sc->n_keks; i++) {
		if (memcmp(sc->kek[i].id, id, KEK_ID_LEN) == 0)
			return &sc->kek[i];
	}
	return NULL;
}

static size_t scope_encode(const struct scope *sc, uint8_t *p)
{
	put64(p, sc->created);
	put64(p + 8, sc->records);
	put64(p + 16, sc->names);
	memcpy(p + 24, sc->sum, SUM_LEN);
	memcpy(p + 56, sc->set_key, KEY_LEN);
	put32(p + 88, 0);
	put32(p + 92, sc->n_keks);
	p += SCOPE_FIXED;
	for (uint32_t i = 0; i < sc->n_keks; i++, p += SCOPE_KEK_LEN) {
		memcpy(p, sc->kek[i].id, KEK_ID_LEN);
		memcpy(p + KEK_ID_LEN, sc->kek[i].key, KEY_LEN);
		put64(p + KEK_ID_LEN + KEY_LEN, sc->kek[i].created);
	}
	return SCOPE_FIXED + sc->n_keks * SCOPE_KEK_LEN;
}

static int scope_decode(const uint8_t *p, size_t n, struct scope *sc)
{
	uint32_t n_keks;

	if (n < SCOPE_FIXED || get32(p + 88) != 0)
		return CSM_ETAMPERED;
	n_keks = get32(p + 92);
	if (n_keks == 0 || n_keks > SCOPE_KEKS_MAX || n != SCOPE_FIXED + n_keks * SCOPE_KEK_LEN)
		return CSM_ETAMPERED;
	*sc = (struct scope){
		.created = get64(p),
		.records = get64(p + 8),
		.names = get64(p + 16),
		.n_keks = n_keks,
	};
	memcpy(sc->sum, p + 24, SUM_LEN);
	memcpy(sc->set_key, p + 56, KEY_LEN);
	p += SCOPE_FIXED;
	for (uint32_t i = 0; i < n_keks; i++, p += SCOPE_KEK_LEN) {
		memcpy(sc->kek[i].id, p, KEK_ID_LEN);
		memcpy(sc->kek[i].key, p + KEK_ID_LEN, KEY_LEN);
		sc->kek[i].created = get64(p + KEK_ID_LEN + KEY_LEN);
	}
	return 0;
}

int store_scope_seal(struct aead *a, const struct prk *prk, struct csm_bin key, const struct scope *sc,
	uint8_t value[static SCOPE_VALUE_MAX], size_t *n)
{
	CSM_WIPED(plain, SCOPE_PLAIN_MAX);
	size_t len = scope_encode(sc, plain);
	int r;

	rec_header(value, REC_SCOPE, sc->created, NULL, 0);
	r = rec_seal(a, prk, REC_SCOPE, key, value, HDR_LEN, (struct csm_bin){plain, len});
	if (r == 0)
		*n = HDR_LEN + len + TAG_LEN;
	return r;
}

int store_scope_open(struct aead *a, const struct prk *prk, struct csm_bin key, struct csm_bin value, struct scope *ret)
{
	CSM_WIPED(plain, SCOPE_PLAIN_MAX);
	struct rec rec;
	int r;

	if ((r = rec_parse(value, REC_SCOPE, &rec)) != 0)
		return r;
	if (rec_plain_len(&rec) > SCOPE_PLAIN_MAX || rec.clear.n != 0)
		return CSM_ETAMPERED;
	if ((r = rec_open(a, prk, &rec, key, plain)) != 0)
		return r;
	return scope_decode(plain, rec_plain_len(&rec), ret);
}
