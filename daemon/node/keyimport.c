#include <string.h>
#include "daemon/node/keyimport.h"
#include "plugins/include/csm_alg.h"

int keyimport_name(struct csm_bin storage, uint8_t name[static CSM_TPM_NAME_LEN])
{
	TPMT_PUBLIC pub;
	TPM2B_NAME made;
	int r;

	if ((r = csm_tpm_public_get(storage, &pub)) != 0 || (r = csm_tpm_name(&pub, &made)) != 0)
		return r;
	memcpy(name, made.name, CSM_TPM_NAME_LEN);
	return 0;
}

/* The algorithm, and the uses that its attributes allow. */
static int spec_of(const TPMT_PUBLIC *pub, struct csm_plugin_keyspec *ret)
{
	bool ecc = pub->type == TPM2_ALG_ECC;

	*ret = (struct csm_plugin_keyspec){.exportable = false};
	if (ecc)
		ret->alg = pub->parameters.eccDetail.curveID == TPM2_ECC_NIST_P256 ? CSM_ALG_P256 :
			pub->parameters.eccDetail.curveID == TPM2_ECC_NIST_P384    ? CSM_ALG_P384 :
										     CSM_ALG_P521;
	else
		ret->alg = pub->parameters.rsaDetail.keyBits == 2048 ? CSM_ALG_RSA2048 :
			pub->parameters.rsaDetail.keyBits == 3072    ? CSM_ALG_RSA3072 :
								       CSM_ALG_RSA4096;
	if ((pub->objectAttributes & TPMA_OBJECT_SIGN_ENCRYPT) != 0)
		ret->use |= CSM_USE_SIGN;
	if ((pub->objectAttributes & TPMA_OBJECT_DECRYPT) != 0)
		ret->use |= ecc ? CSM_USE_DERIVE : CSM_USE_DECRYPT;
	return csm_alg_check_use(ret->alg, ret->use) == 0 ? 0 : CSM_EUNSUPPORTED;
}

/* The back end whose storage key has this Name. */
static int find_storage(struct broker *b, struct csm_bin name, struct csm_backend **ret, const char **why)
{
	uint8_t key[CSM_PLUGIN_STORAGE_MAX], own[CSM_TPM_NAME_LEN];
	bool away = false;

	for (size_t i = 0; i < b->n_backends; i++) {
		struct csm_backend *be = &b->backends[i];
		size_t n = be->plugin->storage_key != NULL ? csm_be_storage_key(be, key) : 0;

		if (n == 0) {
			away |= be->plugin->storage_key != NULL;
			continue;
		}
		if (keyimport_name((struct csm_bin){key, n}, own) == 0 && memcmp(own, name.p, sizeof(own)) == 0) {
			*ret = be;
			return 0;
		}
	}
	*why = away ? "it is for none of the storage keys that are here now, and a back end is away" :
		      "it was wrapped for another node: no storage key of this one has the Name that it is for";
	return away ? CSM_EUNAVAILABLE : CSM_EINVALID;
}

static int look_wrapped(struct broker *b, struct csm_bin wrapped, struct csm_plugin_keyspec *spec, struct csm_backend **be,
	const char **why)
{
	struct csm_wrapped w;
	int r;

	*why = "the wrapped key is damaged, or of a kind that csm has no use for";
	if ((r = csm_wrapped_get(wrapped, &w)) != 0 || (r = spec_of(&w.pub, spec)) != 0)
		return r;
	return find_storage(b, w.storage, be, why);
}

/* They are for a TPM, and only the TPM can say for which. */
static int look_tss2(struct broker *b, struct csm_bin tss2, struct csm_plugin_keyspec *spec, struct csm_backend **be,
	const char **why)
{
	struct csm_tss2 key;
	int r;

	if ((r = csm_tss2_get(tss2, &key, why)) != 0)
		return r;
	*why = "the key's parent is not 0x81000001, the storage root key that csm uses";
	if (key.parent != CSM_TPM_SRK)
		return CSM_EINVALID;
	*why = "the key is of a kind that csm has no use for";
	if ((r = spec_of(&key.pub, spec)) != 0)
		return r;
	*why = "the key is a TPM's, and this node uses none";
	*be = broker_backend(b, CSM_STR("tpm2"));
	return *be != NULL ? 0 : CSM_EINVALID;
}

int keyimport_look(struct broker *b, struct csm_bin wrapped, struct csm_plugin_keyspec *spec, struct csm_backend **be,
	const char **why)
{
	int r = csm_wrapped_is(wrapped) ? look_wrapped(b, wrapped, spec, be, why) : look_tss2(b, wrapped, spec, be, why);

	if (r != 0)
		return r;
	*why = NULL;
	if ((*be)->ctx == NULL)
		return CSM_EUNAVAILABLE;
	*why = "the back end does not have this algorithm";
	return csm_backend_has(*be, spec->alg) ? 0 : CSM_EUNSUPPORTED;
}
