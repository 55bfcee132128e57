#include <openssl/bio.h>
#include <openssl/pem.h>
#include <sodium.h>
#include <string.h>
#include "daemon/node/keyinfo.h"
#include "plugins/include/csm_alg.h"

int keyinfo_armour(const char *label, struct csm_bin der, char *out, size_t cap, struct csm_str *ret)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text;
	long n;
	int r = CSM_ENOMEM;

	if (bio == NULL)
		return CSM_ENOMEM;
	if (PEM_write_bio(bio, label, "", der.p, (long)der.n) <= 0)
		goto out;
	n = BIO_get_mem_data(bio, &text);
	r = CSM_ETOO_LARGE;
	if (n <= 0 || (size_t)n > cap)
		goto out;
	memcpy(out, text, (size_t)n);
	*ret = (struct csm_str){out, (size_t)n};
	r = 0;
out:
	BIO_free(bio);
	return r;
}

int keyinfo_pem(struct csm_bin spki, char *out, size_t cap, struct csm_str *ret)
{
	return keyinfo_armour("PUBLIC KEY", spki, out, cap, ret);
}

int keyinfo_fill(struct csm_str ns, struct csm_str name, const struct csm_key_record *rec, struct keyinfo_space *space,
	struct csm_msg_key_info *ret)
{
	static const enum csm_use uses[] = {CSM_USE_SIGN, CSM_USE_DECRYPT, CSM_USE_DERIVE};
	static const char *const origins[] = {
		[CSM_KEY_MADE] = "made", [CSM_KEY_IMPORTED] = "imported", [CSM_KEY_EXPOSED] = "exposed"};
	uint8_t hash[crypto_hash_sha256_BYTES];
	int r;

	memset(ret, 0, sizeof(*ret));
	if ((r = keyinfo_pem(rec->spki, space->pem, sizeof(space->pem), &ret->public)) != 0)
		return r;
	crypto_hash_sha256(hash, rec->spki.p, rec->spki.n);
	sodium_bin2hex(space->spki_sha256, sizeof(space->spki_sha256), hash, sizeof(hash));
	ret->namespace = ns;
	ret->name = name;
	ret->alg = csm_str_of(csm_alg_name(rec->alg));
	ret->backend = rec->backend;
	ret->protection = rec->protection;
	ret->use.v = space->uses;
	for (size_t i = 0; i < sizeof(uses) / sizeof(uses[0]); i++)
		if (rec->use & uses[i])
			space->uses[ret->use.n++] = csm_str_of(csm_use_name(uses[i]));
	if (rec->use == CSM_USE_ISSUER) {
		if ((r = keyrules_unpack(rec->issuer, &space->issuer)) != 0)
			return r;
		space->uses[ret->use.n++] = CSM_STR("issuer");
		ret->issuer = &space->issuer.rules;
	}
	ret->state = rec->lost ? CSM_STR("lost") : CSM_STR("ready");
	ret->exportable.v = rec->exportable;
	ret->created.v = rec->created;
	ret->spki_sha256 = csm_str_of(space->spki_sha256);
	ret->signatures.v = rec->signatures;
	ret->origin = csm_str_of(origins[rec->origin]);
	ret->tag = rec->tag.n > 0 ? rec->tag : (struct csm_bin){0};
	return 0;
}
