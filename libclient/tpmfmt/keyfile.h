/* The files that carry keys to and from a node: csm's own wrapped key, and the TSS2 PRIVATE KEY of the TPM's other
 * users. Both in PEM; here is what the armour holds. No TPM, no private byte in clear. Any thread. */
#ifndef CSM_TPM_KEYFILE_H
#define CSM_TPM_KEYFILE_H

#include "libclient/tpmfmt/public.h"

#define CSM_PEM_WRAPPED "CSM WRAPPED KEY"
#define CSM_PEM_STORAGE "CSM STORAGE KEY" /* a TPM2B_PUBLIC */
#define CSM_PEM_TSS2 "TSS2 PRIVATE KEY"
#define CSM_TPM_PRIVATE_MAX 1024u /* a TPM2B_PRIVATE's content */
#define CSM_TPM_SRK 0x81000001u

/* A key wrapped for a storage key (proto-spec/WRAPPED-KEY.md). */
struct csm_wrapped {
	struct csm_bin storage;   /* the Name of the storage key that it is for */
	TPMT_PUBLIC pub;
	struct csm_bin duplicate; /* as TPM2_Import takes it: a TPM2B_PRIVATE's content */
	struct csm_bin seed;      /* a TPM2B_ENCRYPTED_SECRET's content */
};
/* Slices of *ret borrow `in`. CSM_EINVALID: it is none, damaged, or of a later form; CSM_EUNSUPPORTED: of a kind of key
 * that csm has no use for. */
CSM_MUST int csm_wrapped_get(struct csm_bin in, struct csm_wrapped *ret);
CSM_MUST int csm_wrapped_put(const struct csm_wrapped *w, struct csm_buf *out);
/* Does it begin as one? */
bool csm_wrapped_is(struct csm_bin in);

/* A key file of tpm2-openssl, tpm2-tools and others (draft "ASN.1 Specification for TPM 2.0 Key Files"): loadable keys
 * without policy. */
struct csm_tss2 {
	bool empty_auth; /* as it says of itself; tpm2-tools 5.4 says the contrary of what is so. Written as true */
	uint32_t parent;
	TPMT_PUBLIC pub;
	struct csm_bin pub_2b, priv_2b; /* whole TPM2B_PUBLIC and TPM2B_PRIVATE */
};
/* Read leniently: any true BOOLEAN, lengths not in their shortest form, a description. CSM_EINVALID, CSM_EUNSUPPORTED
 * (also: importable, sealed, with a policy; *why says which). */
CSM_MUST int csm_tss2_get(struct csm_bin in, struct csm_tss2 *ret, const char **why);
/* Strict DER. pub_2b and priv_2b are written, pub is not looked at. */
CSM_MUST int csm_tss2_put(const struct csm_tss2 *key, struct csm_buf *out);

#endif
