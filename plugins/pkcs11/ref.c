/* The stored form of a key: where its object lies, bound to its public half.
 *
 * version (1), flags (1), the token's serial number (16), length and bytes of CKA_ID, length and bytes of CKA_LABEL,
 * then the first half of SHA-256 over all that, the algorithm and the public key. The store authenticates it; the hash
 * tells damage from absence: a damaged reference must not be taken for a key that may come back. */
#include <string.h>
#include "plugins/pkcs11/pkcs11.h"

#define VERSION 1u
#define FLAG_MADE 1u
#define HEAD 18u
#define CHECK 16u
#define REF_MAX (HEAD + 2 + P11_ID_MAX + P11_LABEL_MAX + CHECK)

static int check_make(const uint8_t *p, size_t n, enum csm_alg alg, const uint8_t *spki, size_t spki_len,
	uint8_t check[static CHECK])
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t sum[EVP_MAX_MD_SIZE], name = (uint8_t)alg;
	int r = CSM_ENOMEM;

	if (md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 && EVP_DigestUpdate(md, p, n) == 1 &&
		EVP_DigestUpdate(md, &name, 1) == 1 && EVP_DigestUpdate(md, spki, spki_len) == 1 &&
		EVP_DigestFinal_ex(md, sum, NULL) == 1) {
		memcpy(check, sum, CHECK);
		r = 0;
	}
	EVP_MD_CTX_free(md);
	return r;
}

static size_t put(uint8_t *at, const uint8_t *p, size_t n)
{
	at[0] = (uint8_t)n;
	memcpy(at + 1, p, n);
	return n + 1;
}

int p11_ref_write(const struct p11_ref *ref, enum csm_alg alg, const uint8_t *spki, size_t spki_len,
	struct csm_plugin_out *out)
{
	uint8_t made[REF_MAX] = {VERSION, ref->made ? FLAG_MADE : 0};
	size_t n = HEAD;
	int r;

	memcpy(made + 2, ref->serial, sizeof(ref->serial));
	n += put(made + n, ref->id, ref->id_len);
	n += put(made + n, ref->label, ref->label_len);
	if ((r = check_make(made, n, alg, spki, spki_len, made + n)) != 0)
		return r;
	return p11_out(out, made, n + CHECK);
}

/* A length and its bytes, at most cap, followed by something. */
static bool get(const uint8_t **at, const uint8_t *end, uint8_t *p, size_t cap, size_t *n)
{
	size_t len;

	if (*at >= end)
		return false;
	len = *(*at)++;
	if (len > cap || len > (size_t)(end - *at))
		return false;
	memcpy(p, *at, len);
	*at += len;
	*n = len;
	return true;
}

int p11_ref_read(struct p11_ref *ret, enum csm_alg alg, const struct csm_plugin_blob *blob)
{
	const uint8_t *at = blob->pub, *end;
	uint8_t check[CHECK];
	struct p11_ref ref = {0};
	int r;

	if (blob->priv_len != 0 || blob->pub_len < HEAD + 2 + CHECK || blob->pub_len > REF_MAX)
		return CSM_ETAMPERED;
	end = at + blob->pub_len - CHECK;
	if (at[0] != VERSION || (at[1] & ~FLAG_MADE) != 0)
		return CSM_ETAMPERED;
	ref.made = (at[1] & FLAG_MADE) != 0;
	memcpy(ref.serial, at + 2, sizeof(ref.serial));
	at += HEAD;
	if (!get(&at, end, ref.id, sizeof(ref.id), &ref.id_len) ||
		!get(&at, end, ref.label, sizeof(ref.label), &ref.label_len) || at != end ||
		ref.id_len + ref.label_len == 0)
		return CSM_ETAMPERED;
	if ((r = check_make(blob->pub, (size_t)(end - blob->pub), alg, blob->spki, blob->spki_len, check)) != 0)
		return r;
	if (memcmp(check, end, CHECK) != 0)
		return CSM_ETAMPERED;
	*ret = ref;
	return 0;
}
