#include <string.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include "plugins/fake/device.h"

#define NONCE_LEN 12u
#define TAG_LEN 16u
#define SECRET_NAME "fake-secret"
#define COUNTER_NAME "fake-counter"

static int keep(const struct csm_plugin_host *host, const char *name, const void *p, size_t n)
{
	return host->remember != NULL ? host->remember(host->arg, name, p, n) : 0;
}

/* CSM_ENOT_FOUND where the host keeps nothing of that name. */
static int recall(const struct csm_plugin_host *host, const char *name, void *p, size_t want)
{
	size_t n = want;
	int r = host->recall != NULL ? host->recall(host->arg, name, p, &n) : CSM_ENOT_FOUND;

	if (r == 0 && n != want)
		r = CSM_EBACKEND;
	return r;
}

int fake_device_open(const struct csm_plugin_host *host, struct fake_device *ret)
{
	struct fake_device d = {.host = host};
	int r;

	r = recall(host, SECRET_NAME, d.secret, sizeof(d.secret));
	if (r == CSM_ENOT_FOUND) {
		if (RAND_priv_bytes(d.secret, sizeof(d.secret)) != 1)
			r = CSM_EBACKEND;
		else
			r = keep(host, SECRET_NAME, d.secret, sizeof(d.secret));
	}
	if (r == 0 && (r = recall(host, COUNTER_NAME, &d.counter, sizeof(d.counter))) == CSM_ENOT_FOUND)
		r = 0;
	if (r == 0)
		*ret = d;
	fake_device_clear(&d);
	return r;
}

void fake_device_clear(struct fake_device *d)
{
	OPENSSL_cleanse(d->secret, sizeof(d->secret));
}

int fake_count(struct fake_device *d)
{
	uint64_t next = d->counter + 1;
	int r = keep(d->host, COUNTER_NAME, &next, sizeof(next));

	if (r == 0)
		d->counter = next;
	return r;
}

/* One pass of AES-256-GCM over n bytes; the tag is made, or (open) checked. */
static bool gcm(bool open, const struct fake_device *d, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
	const uint8_t *in, size_t n, uint8_t *out, uint8_t *tag)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int len = 0;
	bool ok;

	ok = c != NULL && EVP_CipherInit_ex(c, EVP_aes_256_gcm(), NULL, d->secret, nonce, open ? 0 : 1) == 1 &&
		(aad_len == 0 || EVP_CipherUpdate(c, NULL, &len, aad, (int)aad_len) == 1) &&
		(n == 0 || EVP_CipherUpdate(c, out, &len, in, (int)n) == 1) &&
		(!open || EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, tag) == 1) &&
		EVP_CipherFinal_ex(c, out + n, &len) == 1 &&
		(open || EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, tag) == 1);
	EVP_CIPHER_CTX_free(c);
	if (!ok)
		ERR_clear_error();
	return ok;
}

int fake_seal(const struct fake_device *d, const uint8_t *in, size_t n, const uint8_t *aad, size_t aad_len,
	struct csm_plugin_out *out)
{
	if (out->cap < FAKE_SEAL_OVERHEAD || n > out->cap - FAKE_SEAL_OVERHEAD)
		return CSM_ETOO_LARGE;
	if (RAND_bytes(out->p, NONCE_LEN) != 1 ||
		!gcm(false, d, out->p, aad, aad_len, in, n, out->p + NONCE_LEN, out->p + NONCE_LEN + n))
		return CSM_EBACKEND;
	out->len = n + FAKE_SEAL_OVERHEAD;
	return 0;
}

int fake_unseal(const struct fake_device *d, const uint8_t *in, size_t n, const uint8_t *aad, size_t aad_len,
	struct csm_plugin_out *out)
{
	uint8_t tag[TAG_LEN];
	size_t len;

	if (n < FAKE_SEAL_OVERHEAD)
		return CSM_EINVALID;
	len = n - FAKE_SEAL_OVERHEAD;
	if (len > out->cap)
		return CSM_ETOO_LARGE;
	memcpy(tag, in + NONCE_LEN + len, sizeof(tag));
	if (!gcm(true, d, in, aad, aad_len, in + NONCE_LEN, len, out->p, tag)) {
		OPENSSL_cleanse(out->p, len); /* GCM writes before it has checked */
		return CSM_EINVALID;
	}
	out->len = len;
	return 0;
}
