/* The clear fields of a key's record. They are associated data of the private part's seal, and the set
 * hash covers them. The numbers of algorithms and uses are those of the plugin ABI, which keeps them. */
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include "daemon/svc/store_internal.h"

_Static_assert(CSM_ALG_P256 == 0 && CSM_ALG_P384 == 1 && CSM_ALG_P521 == 2 && CSM_ALG_RSA2048 == 3 &&
		CSM_ALG_RSA3072 == 4 && CSM_ALG_RSA4096 == 5 && CSM_ALG_ED25519 == 6,
	"numbers that stand on disks");
_Static_assert(CSM_USE_SIGN == 1 && CSM_USE_DECRYPT == 2 && CSM_USE_DERIVE == 4 && CSM_USE_ISSUER == 16, "numbers that stand on disks");

#define CLEAR_FIXED (CSM_KEY_ID_LEN + 2u + 2u + 1u)
#define FLAG_EXPORTABLE 1u
#define FLAG_TAGGED 2u /* a tag comes last */
#define FLAG_IMPORTED 4u
#define FLAG_EXPOSED 8u /* with FLAG_IMPORTED */
#define FLAG_ISSUER 16u /* its rules stand behind the tag, or in its place */
#define FLAGS (FLAG_EXPORTABLE | FLAG_TAGGED | FLAG_IMPORTED | FLAG_EXPOSED | FLAG_ISSUER)

static uint8_t flags_of(const struct csm_key_record *rec)
{
	return (uint8_t)((rec->exportable ? FLAG_EXPORTABLE : 0) | (rec->tag.n > 0 ? FLAG_TAGGED : 0) |
		(rec->origin != CSM_KEY_MADE ? FLAG_IMPORTED : 0) | (rec->origin == CSM_KEY_EXPOSED ? FLAG_EXPOSED : 0) |
		(rec->issuer.n > 0 ? FLAG_ISSUER : 0));
}

static bool put_bytes(uint8_t *p, size_t cap, size_t *n, const void *s, size_t len)
{
	if (len > UINT16_MAX || cap - *n < 2 + len)
		return false;
	put16(p + *n, (uint16_t)len);
	if (len > 0)
		memcpy(p + *n + 2, s, len);
	*n += 2 + len;
	return true;
}

int store_key_clear_put(const struct csm_key_record *rec, uint8_t *p, size_t cap, size_t *n)
{
	size_t at = CLEAR_FIXED;

	if (rec->issuer.n > CSM_ISSUER_RULES_MAX || (rec->issuer.n > 0) != (rec->use == CSM_USE_ISSUER))
		return CSM_EINVALID;
	if (cap < CLEAR_FIXED || rec->tag.n > CSM_KEY_TAG_MAX || rec->use > UINT16_MAX || (unsigned)rec->alg >= CSM_ALG__COUNT)
		return CSM_EINVALID;
	memcpy(p, rec->id, CSM_KEY_ID_LEN);
	put16(p + 16, (uint16_t)rec->alg);
	put16(p + 18, (uint16_t)rec->use);
	p[20] = flags_of(rec);
	if (!put_bytes(p, cap, &at, rec->backend.p, rec->backend.n) ||
		!put_bytes(p, cap, &at, rec->protection.p, rec->protection.n) ||
		!put_bytes(p, cap, &at, rec->spki.p, rec->spki.n) || !put_bytes(p, cap, &at, rec->pub.p, rec->pub.n) ||
		(rec->tag.n > 0 && !put_bytes(p, cap, &at, rec->tag.p, rec->tag.n)) ||
		(rec->issuer.n > 0 && !put_bytes(p, cap, &at, rec->issuer.p, rec->issuer.n)))
		return CSM_ETOO_LARGE;
	*n = at;
	return 0;
}

static bool take_bytes(struct csm_bin *clear, struct csm_bin *ret)
{
	size_t len;

	if (clear->n < 2)
		return false;
	len = get16(clear->p);
	if (len > clear->n - 2)
		return false;
	*ret = (struct csm_bin){clear->p + 2, len};
	clear->p += 2 + len;
	clear->n -= 2 + len;
	return true;
}

int store_key_clear_get(struct csm_bin clear, struct csm_key_record *ret)
{
	struct csm_key_record rec = {0};
	struct csm_bin backend, protection;
	bool tagged, issuer;

	if (clear.n < CLEAR_FIXED)
		return CSM_ETAMPERED;
	memcpy(rec.id, clear.p, CSM_KEY_ID_LEN);
	if (get16(clear.p + 16) >= CSM_ALG__COUNT || (clear.p[20] & ~FLAGS) != 0 ||
		(clear.p[20] & (FLAG_IMPORTED | FLAG_EXPOSED)) == FLAG_EXPOSED)
		return CSM_ETAMPERED;
	rec.alg = (enum csm_alg)get16(clear.p + 16);
	rec.use = get16(clear.p + 18);
	rec.exportable = (clear.p[20] & FLAG_EXPORTABLE) != 0;
	rec.origin = (clear.p[20] & FLAG_EXPOSED) != 0 ? CSM_KEY_EXPOSED :
		(clear.p[20] & FLAG_IMPORTED) != 0     ? CSM_KEY_IMPORTED :
							 CSM_KEY_MADE;
	tagged = (clear.p[20] & FLAG_TAGGED) != 0;
	issuer = (clear.p[20] & FLAG_ISSUER) != 0;
	clear.p += CLEAR_FIXED;
	clear.n -= CLEAR_FIXED;
	if (!take_bytes(&clear, &backend) || !take_bytes(&clear, &protection) || !take_bytes(&clear, &rec.spki) ||
		!take_bytes(&clear, &rec.pub) || (tagged && (!take_bytes(&clear, &rec.tag) || rec.tag.n == 0)) ||
		(issuer && (!take_bytes(&clear, &rec.issuer) || rec.issuer.n == 0)) || issuer != (rec.use == CSM_USE_ISSUER) ||
		clear.n != 0)
		return CSM_ETAMPERED;
	rec.backend = (struct csm_str){(const char *)backend.p, backend.n};
	rec.protection = (struct csm_str){(const char *)protection.p, protection.n};
	*ret = rec;
	return 0;
}

struct csm_str csm_store_key_beside(struct csm_str name, enum csm_key_beside which, char buf[static CSM_KEY_BESIDE_NAME])
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	char hex[33];
	int n;

	crypto_hash_sha256(hash, (const uint8_t *)name.p, name.n);
	sodium_bin2hex(hex, sizeof(hex), hash, 16);
	n = snprintf(buf, CSM_KEY_BESIDE_NAME, ".%s-%s", which == CSM_KEY_NEXT ? "next" : "before", hex);
	return (struct csm_str){buf, (size_t)n};
}
