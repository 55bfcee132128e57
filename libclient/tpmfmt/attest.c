#include "libclient/tpmfmt/attest.h"

#include <stdio.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <tss2/tss2_mu.h>
#include "libclient/tpmfmt/dup.h"

/* A key that was made in this TPM and cannot leave it. */
#define BORN_HERE (TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN)

/* ---- taking apart ---- */

static int parse_attest(struct csm_bin b, TPMS_ATTEST *ret)
{
	TPMS_ATTEST a;
	uint8_t again[sizeof(a)];
	size_t off = 0, len = 0;

	memset(&a, 0, sizeof(a));
	if (b.n > sizeof(again) || Tss2_MU_TPMS_ATTEST_Unmarshal(b.p, b.n, &off, &a) != TSS2_RC_SUCCESS || off != b.n ||
		Tss2_MU_TPMS_ATTEST_Marshal(&a, again, sizeof(again), &len) != TSS2_RC_SUCCESS || len != b.n ||
		memcmp(again, b.p, len) != 0)
		return CSM_EINVALID;
	*ret = a;
	return 0;
}

static int parse_signature(struct csm_bin b, TPMT_SIGNATURE *ret)
{
	size_t off = 0;

	memset(ret, 0, sizeof(*ret));
	if (b.n > sizeof(*ret) || Tss2_MU_TPMT_SIGNATURE_Unmarshal(b.p, b.n, &off, ret) != TSS2_RC_SUCCESS || off != b.n)
		return CSM_EINVALID;
	return 0;
}

static int parse_public(struct csm_bin b, TPMT_PUBLIC *pub, TPM2B_NAME *name)
{
	int r = csm_tpm_public_parse(b.p, b.n, pub);

	return r == 0 && csm_tpm_name(pub, name) != 0 ? CSM_EINVALID : r;
}

static int parse_ek(struct csm_attestation *a, const char **what)
{
	const struct csm_msg_attestation *m = &a->msg;
	const uint8_t *at = m->ek_certificate.p;

	*what = "the endorsement key is no public area of a TPM";
	if (m->ek_public.p != NULL && parse_public(m->ek_public, &a->ek, &a->ek_name) != 0)
		return CSM_EINVALID;
	a->has_ek = m->ek_public.p != NULL;
	if (m->ek_certificate.p == NULL)
		return 0;
	*what = "the endorsement key's certificate is none";
	a->cert = d2i_X509(NULL, &at, (long)m->ek_certificate.n);
	return a->cert == NULL || at != m->ek_certificate.p + m->ek_certificate.n ? CSM_EINVALID : 0;
}

int csm_attest_parse(const uint8_t *p, size_t n, struct csm_attestation *ret, const char **what)
{
	struct csm_attestation a;
	struct csm_str bad;
	int r = CSM_EINVALID;

	memset(&a, 0, sizeof(a));
	*what = "it is not a statement of this form";
	if (n > CSM_ATTESTATION_MAX || csm_msg_decode(CSM_DEF(attestation), (struct csm_bin){p, n}, CSM_UNKNOWN_REFUSE, NULL,
					       &a.msg, &bad) != 0)
		goto out;
	*what = "it is of a later version";
	if (a.msg.version.v != 1 || !csm_str_eq(a.msg.type, "tpm2"))
		goto out;
	*what = "the key is no public area of a TPM";
	if (parse_public(a.msg.public, &a.key, &a.key_name) != 0)
		goto out;
	*what = "the attestation key is no public area of a TPM";
	if (parse_public(a.msg.ak_public, &a.ak, &a.ak_name) != 0)
		goto out;
	*what = "what is signed is not of a TPM's form";
	if (parse_attest(a.msg.attest, &a.attest) != 0)
		goto out;
	*what = "the signature is not of a TPM's form";
	if (parse_signature(a.msg.signature, &a.sig) != 0 || parse_ek(&a, what) != 0)
		goto out;
	*ret = a;
	memset(&a, 0, sizeof(a));
	r = 0;
out:
	csm_attest_clear(&a);
	return r;
}

void csm_attest_clear(struct csm_attestation *a)
{
	X509_free(a->cert);
	a->cert = NULL;
}

/* ---- checks ---- */

struct check {
	const struct csm_attestation *a;
	const struct csm_attest_want *want;
	csm_attest_tell_fn *tell;
	void *arg;
	bool good;
};

static void say(struct check *c, const char *check, bool good, const char *yes, const char *no)
{
	c->tell(c->arg, check, good ? CSM_ATTEST_OK : CSM_ATTEST_FAILED, good ? yes : no);
	c->good &= good;
}

static void leave(struct check *c, const char *check, const char *text)
{
	c->tell(c->arg, check, CSM_ATTEST_OPEN, text);
}

/* The signature as OpenSSL takes it; the scheme and hash must be the attestation key's own. */
static int signature_of(const struct csm_attestation *a, TPMI_ALG_HASH *hash, uint8_t out[static 1024], size_t *len)
{
	const TPMS_SIGNATURE_ECDSA *e = &a->sig.signature.ecdsa;
	ECDSA_SIG *es = NULL;
	BIGNUM *r, *s;
	uint8_t *p = out;
	int n;

	if (a->ak.type == TPM2_ALG_RSA && a->sig.sigAlg == TPM2_ALG_RSASSA &&
		a->ak.parameters.rsaDetail.scheme.scheme == TPM2_ALG_RSASSA &&
		a->ak.parameters.rsaDetail.scheme.details.rsassa.hashAlg == a->sig.signature.rsassa.hash) {
		*hash = a->sig.signature.rsassa.hash;
		*len = a->sig.signature.rsassa.sig.size;
		memcpy(out, a->sig.signature.rsassa.sig.buffer, *len);
		return 0;
	}
	if (a->ak.type != TPM2_ALG_ECC || a->sig.sigAlg != TPM2_ALG_ECDSA ||
		a->ak.parameters.eccDetail.scheme.scheme != TPM2_ALG_ECDSA ||
		a->ak.parameters.eccDetail.scheme.details.ecdsa.hashAlg != e->hash)
		return CSM_EINVALID;
	*hash = e->hash;
	es = ECDSA_SIG_new();
	r = BN_bin2bn(e->signatureR.buffer, e->signatureR.size, NULL);
	s = BN_bin2bn(e->signatureS.buffer, e->signatureS.size, NULL);
	n = 0;
	if (es != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(es, r, s) == 1) {
		r = s = NULL;
		if ((n = i2d_ECDSA_SIG(es, NULL)) > 0 && n <= 1024)
			n = i2d_ECDSA_SIG(es, &p);
		else
			n = 0;
	}
	BN_free(r);
	BN_free(s);
	ECDSA_SIG_free(es);
	*len = (size_t)n;
	return n > 0 ? 0 : CSM_EINVALID;
}

static bool signature_good(const struct csm_attestation *a)
{
	uint8_t sig[1024];
	size_t len = 0, hash_len;
	TPMI_ALG_HASH alg = TPM2_ALG_NULL;
	EVP_PKEY *ak = NULL;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	const char *hash;
	bool good = false;

	if (ctx != NULL && signature_of(a, &alg, sig, &len) == 0 && (hash = csm_tpm_hash(alg, &hash_len)) != NULL &&
		csm_tpm_public_evp(&a->ak, &ak) == 0 &&
		EVP_DigestVerifyInit_ex(ctx, NULL, hash, NULL, NULL, ak, NULL) == 1)
		good = EVP_DigestVerify(ctx, sig, len, a->msg.attest.p, a->msg.attest.n) == 1;
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(ak);
	return good;
}

static bool name_is(const TPM2B_NAME *a, const uint8_t *p, size_t n)
{
	return a->size == n && memcmp(a->name, p, n) == 0;
}

static void check_attest(struct check *c)
{
	const struct csm_attestation *a = c->a;
	const TPMS_ATTEST *s = &a->attest;
	bool certify = s->type == TPM2_ST_ATTEST_CERTIFY;
	const TPM2B_NAME *name = &s->attested.certify.name;

	say(c, "signature", signature_good(a), "the attestation key signed the statement",
		"the statement is not signed by the attestation key");
	say(c, "magic", s->magic == TPM2_GENERATED_VALUE, "the statement was made inside of a TPM",
		"the statement was not made inside of a TPM");
	say(c, "type", certify, "it is a statement about a key (TPM2_Certify)", "it is not a statement about a key");
	say(c, "name", certify && name_is(&a->key_name, name->name, name->size), "it is about this public area",
		"it is about another key, or one with other attributes");
	if (c->want->nonce != NULL)
		say(c, "nonce", s->extraData.size == c->want->nonce_len && s->extraData.size > 0 &&
				memcmp(s->extraData.buffer, c->want->nonce, c->want->nonce_len) == 0,
			"it was made for this nonce", "it has not this nonce: it was not made for this question");
	else
		leave(c, "nonce", s->extraData.size > 0 ? "it has a nonce, which was not compared: it may be an old statement"
						       : "it has no nonce: it may be an old statement");
}

/* Its qualified Name: a chain of hashes from the hierarchy over all of its parents' Names, made by the TPM that loaded it (TPM 2.0
 * Library, part 1, 16.1). */
static bool qualified_by(const TPM2B_NAME *storage, const TPM2B_NAME *name, TPM2B_NAME *ret)
{
	uint8_t in[2 * CSM_TPM_NAME_LEN] = {TPM2_RH_OWNER >> 24, TPM2_RH_OWNER >> 16 & 0xff, TPM2_RH_OWNER >> 8 & 0xff, TPM2_RH_OWNER & 0xff};
	size_t n = 4;

	if (storage->size != CSM_TPM_NAME_LEN || name->size != CSM_TPM_NAME_LEN)
		return false;
	ret->size = CSM_TPM_NAME_LEN;
	for (const TPM2B_NAME *next = storage; next != NULL; next = next == storage ? name : NULL) {
		memcpy(in + n, next->name, CSM_TPM_NAME_LEN);
		ret->name[0] = TPM2_ALG_SHA256 >> 8;
		ret->name[1] = TPM2_ALG_SHA256 & 0xff;
		if (EVP_Digest(in, n + CSM_TPM_NAME_LEN, ret->name + 2, NULL, EVP_sha256(), NULL) != 1)
			return false;
		memcpy(in, ret->name, n = CSM_TPM_NAME_LEN);
	}
	return true;
}

static void check_storage(struct check *c)
{
	const TPMS_ATTEST *s = &c->a->attest;
	TPM2B_NAME q;

	if (c->want->storage == NULL)
		return;
	say(c, "storage-key", s->type == TPM2_ST_ATTEST_CERTIFY && qualified_by(c->want->storage, &c->a->key_name, &q) &&
			name_is(&q, s->attested.certify.qualifiedName.name, s->attested.certify.qualifiedName.size),
		"the key is below this storage key, in the same TPM", "the storage key is not that of the statement's TPM");
}

static void check_key(struct check *c)
{
	const struct csm_attestation *a = c->a;
	TPMA_OBJECT attr = a->key.objectAttributes;
	EVP_PKEY *key = NULL;
	bool whole = csm_tpm_public_evp(&a->key, &key) == 0;

	say(c, "fixed-tpm", (attr & TPMA_OBJECT_FIXEDTPM) != 0, "the key cannot leave its TPM", "the key may leave its TPM");
	say(c, "fixed-parent", (attr & TPMA_OBJECT_FIXEDPARENT) != 0, "the key cannot be duplicated",
		"the key may be duplicated to another parent");
	say(c, "origin", (attr & BORN_HERE) == BORN_HERE, "the key was made in its TPM",
		"the key was made outside of a TPM, or may have been");
	if (c->want->key == NULL)
		leave(c, "key", "it was not compared with a public key of yours");
	else
		say(c, "key", whole && EVP_PKEY_eq(key, c->want->key) == 1, "it is the public key that was given",
			"it is another key than the one that was given");
	EVP_PKEY_free(key);
}

static bool is_ak(const TPMT_PUBLIC *ak)
{
	const TPMA_OBJECT must = BORN_HERE | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_SIGN_ENCRYPT;

	return (ak->objectAttributes & (must | TPMA_OBJECT_DECRYPT)) == must;
}

static void check_ak(struct check *c)
{
	EVP_PKEY *ak = NULL;
	bool whole = csm_tpm_public_evp(&c->a->ak, &ak) == 0;

	say(c, "ak", is_ak(&c->a->ak), "the attestation key signs only what its TPM has made",
		"the attestation key is none: it is not restricted to what its TPM has made, or not fixed to it");
	if (c->want->ak != NULL)
		say(c, "ak-pin", whole && EVP_PKEY_eq(ak, c->want->ak) == 1, "it is the attestation key that was given",
			"it is another attestation key than the one that was given");
	EVP_PKEY_free(ak);
}

static bool chain_good(X509 *cert, X509_STORE *ca)
{
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	bool good = false;

	if (ctx != NULL && X509_STORE_CTX_init(ctx, ca, cert, NULL) == 1)
		good = X509_verify_cert(ctx) == 1;
	X509_STORE_CTX_free(ctx);
	return good;
}

/* A certificate that says what it is for has to be for an endorsement key (TCG EK Credential Profile, 3.2.16). */
static bool is_for_ek(X509 *cert)
{
	EXTENDED_KEY_USAGE *uses = X509_get_ext_d2i(cert, NID_ext_key_usage, NULL, NULL);
	bool good = uses == NULL && X509_get_ext_by_NID(cert, NID_ext_key_usage, -1) < 0;
	char oid[32];

	for (int i = 0; !good && uses != NULL && i < sk_ASN1_OBJECT_num(uses); i++)
		good = OBJ_obj2txt(oid, sizeof(oid), sk_ASN1_OBJECT_value(uses, i), 1) > 0 && strcmp(oid, "2.23.133.8.1") == 0;
	sk_ASN1_OBJECT_pop_free(uses, ASN1_OBJECT_free);
	return good;
}

static bool is_ek(const struct csm_attestation *a)
{
	const TPMA_OBJECT must = BORN_HERE | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT;
	EVP_PKEY *key = NULL;
	bool good = a->has_ek && (a->ek.objectAttributes & (must | TPMA_OBJECT_SIGN_ENCRYPT)) == must && a->cert != NULL &&
		csm_tpm_public_evp(&a->ek, &key) == 0 && EVP_PKEY_eq(X509_get0_pubkey(a->cert), key) == 1;

	EVP_PKEY_free(key);
	return good;
}

/* What whoever made the statement says of it: nothing that a terminal takes for a command. */
static void missing_text(const struct csm_attestation *a, char out[static 200])
{
	size_t n = a->msg.ek_missing.n < 199 ? a->msg.ek_missing.n : 199;

	for (size_t i = 0; i < n; i++)
		out[i] = a->msg.ek_missing.p[i] >= 0x20 && a->msg.ek_missing.p[i] < 0x7f ? a->msg.ek_missing.p[i] : '?';
	out[n] = '\0';
}

static void check_ek(struct check *c)
{
	const struct csm_attestation *a = c->a;
	char text[320], missing[200];

	missing_text(a, missing);
	if (c->want->ca == NULL) {
		snprintf(text, sizeof(text), "the endorsement key's certificate was not checked: no --ca was given%s%s",
			a->cert == NULL ? "; there is none: " : "", a->cert == NULL ? missing : "");
		leave(c, "ek", text);
		return;
	}
	if (a->cert == NULL) {
		snprintf(text, sizeof(text), "there is no certificate of an endorsement key: %s", missing);
		say(c, "ek", false, "", text);
		return;
	}
	say(c, "ek", is_ek(a), "the certificate is the endorsement key's", "the certificate is not of this endorsement key");
	say(c, "ek-use", is_for_ek(a->cert), "nothing says that it is for something else", "the certificate is for another use");
	say(c, "ek-chain", chain_good(a->cert, c->want->ca), "the TPM's maker certified the endorsement key",
		"no CA that was given has certified the endorsement key");
}

/* ---- the link from the attestation key to the endorsement key ---- */

static bool proof_good(const struct csm_attestation *a, const struct csm_msg_attest_secret *s,
	const struct csm_msg_attest_proof *p)
{
	uint8_t text[sizeof(CSM_ATTEST_PROOF_TEXT) + 2 * sizeof(TPMU_NAME)], mac[EVP_MAX_MD_SIZE];
	size_t n = sizeof(CSM_ATTEST_PROOF_TEXT);
	unsigned mac_n = 0;

	if (!a->has_ek || s->secret.n != CSM_ATTEST_SECRET_LEN || p->proof.n != 32 ||
		!name_is(&a->ak_name, s->ak_name.p, s->ak_name.n) || !name_is(&a->ek_name, s->ek_name.p, s->ek_name.n) ||
		!name_is(&a->ak_name, p->ak_name.p, p->ak_name.n) || !name_is(&a->ek_name, p->ek_name.p, p->ek_name.n))
		return false;
	memcpy(text, CSM_ATTEST_PROOF_TEXT, n);
	memcpy(text + n, a->ak_name.name, a->ak_name.size);
	n += a->ak_name.size;
	memcpy(text + n, a->ek_name.name, a->ek_name.size);
	n += a->ek_name.size;
	return HMAC(EVP_sha256(), s->secret.p, (int)s->secret.n, text, n, mac, &mac_n) != NULL && mac_n == p->proof.n &&
		CRYPTO_memcmp(mac, p->proof.p, mac_n) == 0;
}

static void check_link(struct check *c)
{
	static const char vouched[] = "the attestation key is in one TPM with the endorsement key, which nobody vouched for";
	static const char nothing[] = "nothing proves that the attestation key is in the TPM of the endorsement key, or in any: "
				      "csm attest challenge does, or --ak with a key for which it was done";
	const struct csm_attest_want *w = c->want;
	bool proof = w->secret != NULL && w->proof != NULL;

	if (proof && !proof_good(c->a, w->secret, w->proof))
		say(c, "link", false, "", "the proof is not one of this attestation key and endorsement key for this secret");
	else if (proof && w->ca != NULL)
		say(c, "link", true, "the TPM of the endorsement key proved that the attestation key is in it", "");
	else if (w->ak != NULL)
		leave(c, "link", "the attestation key was taken from --ak: it is as good as the way by which you came to that");
	else if (w->unproven)
		leave(c, "link", proof ? vouched : nothing);
	else
		say(c, "link", false, "", proof ? vouched : nothing);
}

bool csm_attest_check(const struct csm_attestation *a, const struct csm_attest_want *want, csm_attest_tell_fn *tell, void *arg)
{
	struct check c = {a, want, tell, arg, true};

	check_attest(&c);
	check_key(&c);
	check_storage(&c);
	check_ak(&c);
	check_ek(&c);
	check_link(&c);
	return c.good;
}

/* ---- the challenge ---- */

int csm_attest_challenge(const struct csm_attestation *a, struct csm_attest_space *space,
	struct csm_msg_attest_challenge *challenge, struct csm_msg_attest_secret *secret)
{
	/* What the wrap takes: the secret as TPM2B_DIGEST. */
	uint8_t plain[2 + CSM_ATTEST_SECRET_LEN] = {0, CSM_ATTEST_SECRET_LEN};
	size_t len = 0;
	int r = CSM_EINVALID;

	if (!a->has_ek)
		return r;
	if (RAND_bytes(space->secret, sizeof(space->secret)) != 1)
		return CSM_EBACKEND;
	memcpy(plain + 2, space->secret, sizeof(space->secret));
	r = csm_tpm_wrap(&a->ek, "IDENTITY", &a->ak_name, plain, sizeof(plain), space->blob, sizeof(space->blob), &len,
		&space->seed);
	OPENSSL_cleanse(plain, sizeof(plain));
	if (r != 0)
		return r == CSM_EUNSUPPORTED ? CSM_EINVALID : r;
	space->ak_name = a->ak_name;
	space->ek_name = a->ek_name;
	struct csm_bin ak = {space->ak_name.name, space->ak_name.size}, ek = {space->ek_name.name, space->ek_name.size};

	*challenge = (struct csm_msg_attest_challenge){.version = {1, true}, .ak_name = ak, .ek_name = ek,
		.credential = {space->blob, len}, .secret = {space->seed.secret, space->seed.size}};
	*secret = (struct csm_msg_attest_secret){
		.version = {1, true}, .ak_name = ak, .ek_name = ek, .secret = {space->secret, sizeof(space->secret)}};
	return 0;
}
