#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include "daemon/pki/subject.h"
#include "tests/lib/pkifix.h"

#define ARGS_MAX 48
#define SAID_MAX (256u * 1024u)

static void must(bool ok)
{
	if (ok)
		return;
	ERR_print_errors_fp(stderr);
	abort();
}

EVP_PKEY *pki_key(const char *name)
{
	static EVP_PKEY *keys[CSM_ALG__COUNT];
	static const char *const curves[] = {[CSM_ALG_P256] = "P-256", [CSM_ALG_P384] = "P-384", [CSM_ALG_P521] = "P-521"};
	enum csm_alg alg = CSM_ALG_P256;

	must(csm_alg_parse(csm_str_of(name), &alg) == 0);
	if (keys[alg] != NULL)
		return keys[alg];
	if (csm_alg_is_ec(alg))
		keys[alg] = EVP_PKEY_Q_keygen(NULL, NULL, "EC", curves[alg]);
	else if (csm_alg_is_rsa(alg))
		keys[alg] = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)strtoul(name + 3, NULL, 10));
	else
		keys[alg] = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	must(keys[alg] != NULL);
	return keys[alg];
}

static int sign(void *arg, struct csm_bin tbs, const struct csm_scheme *scheme, uint8_t *sig, size_t *n)
{
	EVP_MD_CTX *m = EVP_MD_CTX_new();
	EVP_PKEY_CTX *c = NULL;

	*n = CSM_SIGNATURE_MAX;
	must(EVP_DigestSignInit_ex(m, &c, csm_hash_name(scheme->hash), NULL, NULL, arg, NULL) == 1);
	if (scheme->kind == CSM_SCHEME_RSA_PSS)
		must(EVP_PKEY_CTX_set_rsa_padding(c, 6) == 1 && EVP_PKEY_CTX_set_rsa_pss_saltlen(c, -1) == 1);
	must(EVP_DigestSign(m, sig, n, tbs.p, tbs.n) == 1);
	EVP_MD_CTX_free(m);
	return 0;
}

struct csm_signer pki_signer(EVP_PKEY *key, const char *scheme)
{
	struct csm_signer s = {.pub = key, .sign = sign, .arg = key};

	if (scheme == NULL)
		scheme = EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519 ? "ed25519" :
			EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA ? "rsa-pkcs1-sha256" : EVP_PKEY_get_bits(key) == 384 ?
			"ecdsa-sha384" : EVP_PKEY_get_bits(key) == 521 ? "ecdsa-sha512" : "ecdsa-sha256";
	must(csm_scheme_parse(csm_str_of(scheme), &s.scheme) == 0);
	return s;
}

/* ---- requests ---- */

X509_NAME *pki_name(const char *text)
{
	X509_NAME *name = NULL;
	char why[128];

	if (csm_subject_parse(csm_str_of(text), &name, why) != 0) {
		fprintf(stderr, "%s: %s\n", text, why);
		abort();
	}
	return name;
}

GENERAL_NAMES *pki_sans(const char *const *texts, size_t n)
{
	struct csm_str all[16];
	GENERAL_NAMES *names = NULL;
	char why[128];

	must(n <= 16);
	for (size_t i = 0; i < n; i++)
		all[i] = csm_str_of(texts[i]);
	must(csm_sans_parse(all, n, &names, why) == 0);
	return names;
}

void pki_request(const struct pki_reqspec *s, struct csm_buf *out)
{
	X509_REQ *req = X509_REQ_new();
	X509_NAME *name = pki_name(s->subject != NULL ? s->subject : "/");
	STACK_OF(X509_EXTENSION) *exts = sk_X509_EXTENSION_new_null();
	bool own_hash = EVP_PKEY_get_base_id(s->key) == EVP_PKEY_ED25519;
	const EVP_MD *md = own_hash ? NULL : EVP_get_digestbyname(s->hash != NULL ? s->hash : "SHA256");
	unsigned char *der = NULL;
	int n;

	must(X509_REQ_set_subject_name(req, name) == 1 && X509_REQ_set_pubkey(req, s->key) == 1);
	for (size_t i = 0; i < 20 && s->exts[i].name != NULL; i++) {
		X509_EXTENSION *e = X509V3_EXT_conf(NULL, NULL, s->exts[i].name, s->exts[i].value);

		must(e != NULL && sk_X509_EXTENSION_push(exts, e) > 0);
	}
	if (sk_X509_EXTENSION_num(exts) > 0)
		must(X509_REQ_add_extensions(req, exts) == 1 &&
			(!s->two_lists || X509_REQ_add_extensions_nid(req, exts, NID_ms_ext_req) == 1));
	must(X509_REQ_sign(req, s->key, md) > 0);
	n = i2d_X509_REQ(req, &der);
	if (s->spoil)
		der[n - 1] ^= 1;
	must(n > 0 && csm_buf_put(out, der, (size_t)n) == 0);
	OPENSSL_free(der);
	sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
	X509_NAME_free(name);
	X509_REQ_free(req);
}

/* ---- a CA ---- */

struct csm_bin pki_spki(EVP_PKEY *key)
{
	static struct {
		EVP_PKEY *key;
		unsigned char der[CSM_SPKI_MAX];
		int n;
	} kept[CSM_ALG__COUNT * 2];
	size_t i = 0;

	while (kept[i].key != NULL && kept[i].key != key)
		must(++i < CSM_ALG__COUNT * 2);
	if (kept[i].key == NULL) {
		unsigned char *at = kept[i].der;

		must(i2d_PUBKEY(key, NULL) <= (int)sizeof(kept[i].der));
		kept[i].n = i2d_PUBKEY(key, &at);
		must(EVP_PKEY_up_ref(key) == 1);
		kept[i].key = key;
	}
	return (struct csm_bin){kept[i].der, (size_t)kept[i].n};
}

X509 *pki_issue(const struct csm_cert_order *o, const struct csm_signer *signer)
{
	struct csm_buf der;
	const unsigned char *at;
	char why[CSM_CERTREQ_WHY];
	X509 *x;

	csm_buf_init(&der, 65536, false);
	if (csm_cert_issue(o, signer, &der, why) != 0) {
		fprintf(stderr, "refused: %s\n", why);
		abort();
	}
	at = csm_buf_ptr(&der);
	x = d2i_X509(NULL, &at, (long)der.len);
	must(x != NULL && at == csm_buf_ptr(&der) + der.len);
	csm_buf_free(&der);
	return x;
}

struct csm_profile pki_profile(void)
{
	static const struct csm_subject_rule subject[] = {
		{NID_commonName, {"*", 1}, false},
		{NID_organizationName, {"Example*", 8}, false},
	};
	static const struct csm_str sans[] = {{"dns:.example", 12}, {"ip:10.0.0.0/8", 13}, {"uri:spiffe://td/ns/*/sa/*", 25},
		{"email:@example.org", 18}};

	return (struct csm_profile){.keys = CSM_PROFILE_P256 | CSM_PROFILE_P384 | CSM_PROFILE_P521 | CSM_PROFILE_ED25519 |
			CSM_PROFILE_RSA, .rsa_min = 2048, .rsa_max = 4096, .max_life = 2 * PKI_DAY,
		.key_usage = KU_DIGITAL_SIGNATURE, .ekus = {"serverAuth"}, .n_ekus = 1, .subject = subject, .n_subject = 2,
		.sans = sans, .n_sans = 4, .path_len = CSM_PATH_ANY};
}

struct pki_ca pki_ca_make(const char *subject, const char *alg, const struct pki_ca *above)
{
	struct csm_profile p = pki_profile();
	struct csm_cert_order o = {.profile = &p, .serial = {1}, .not_before = PKI_NOW - PKI_DAY,
		.not_after = PKI_NOW + (above == NULL ? 3650 : 3649) * PKI_DAY, .issuer = above != NULL ? above->cert : NULL};
	struct pki_ca ca = {.key = above == NULL ? pki_key(alg) : EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256")};
	X509_NAME *name = pki_name(subject);
	struct csm_signer s = pki_signer(above != NULL ? above->key : ca.key, NULL);

	p.ca = true;
	p.path_len = above == NULL ? 1 : 0;
	p.key_usage = KU_KEY_CERT_SIGN | KU_CRL_SIGN;
	p.n_ekus = 0;
	p.max_life = 3651 * PKI_DAY;
	o.subject = name;
	o.spki = pki_spki(ca.key);
	if (above == NULL)
		EVP_PKEY_up_ref(ca.key);
	ca.cert = pki_issue(&o, &s);
	X509_NAME_free(name);
	return ca;
}

void pki_ca_free(struct pki_ca *ca)
{
	X509_free(ca->cert);
	EVP_PKEY_free(ca->key);
}

/* ---- files and the command ---- */

static char dir[] = "/tmp/csm-pki.XXXXXX";
static char names[32][64];
static size_t n_names;

const char *pki_dir(void)
{
	static bool made;

	if (!made)
		must(mkdtemp(dir) != NULL);
	made = true;
	return dir;
}

const char *pki_file(const char *name)
{
	static char paths[8][128];
	static size_t at;
	char *p = paths[at++ % 8];
	size_t i = 0;

	while (i < n_names && strcmp(names[i], name) != 0)
		i++;
	if (i == n_names) {
		must(n_names < 32);
		(void)snprintf(names[n_names++], sizeof(names[0]), "%s", name);
	}
	(void)snprintf(p, sizeof(paths[0]), "%s/%s", pki_dir(), name);
	return p;
}

void pki_write(const char *name, struct csm_bin bytes)
{
	FILE *f = fopen(pki_file(name), "we");

	must(f != NULL && fwrite(bytes.p, 1, bytes.n, f) == bytes.n && fclose(f) == 0);
}

void pki_write_cert(const char *name, X509 *cert)
{
	FILE *f = fopen(pki_file(name), "we");

	must(f != NULL && PEM_write_X509(f, cert) == 1 && fclose(f) == 0);
}

void pki_dir_free(void)
{
	for (size_t i = 0; i < n_names; i++)
		(void)unlink(pki_file(names[i]));
	(void)rmdir(dir);
}

static void __attribute__((noreturn)) child(char **argv, int out)
{
	(void)dup2(out, STDOUT_FILENO);
	(void)dup2(out, STDERR_FILENO);
	execvp("openssl", argv);
	_exit(127);
}

int pki_openssl(const char *args, const char **out)
{
	static char said[SAID_MAX], words[4096];
	char *argv[ARGS_MAX] = {(char *)"openssl"}, *next = words;
	int fds[2], status, n = 1;
	size_t len = 0;
	ssize_t got;
	pid_t pid = -1;

	must(snprintf(words, sizeof(words), "%s", args) < (int)sizeof(words));
	while (next != NULL && n < ARGS_MAX - 1) {
		char *word = next;

		if ((next = strchr(word, ' ')) != NULL)
			*next++ = '\0';
		argv[n++] = word[0] == '@' ? (char *)pki_file(word + 1) : word;
	}
	must(pipe2(fds, O_CLOEXEC) == 0 && (pid = fork()) >= 0);
	if (pid == 0)
		child(argv, fds[1]);
	close(fds[1]);
	while ((got = read(fds[0], said + len, sizeof(said) - 1 - len)) > 0)
		len += (size_t)got;
	said[len] = '\0';
	close(fds[0]);
	must(waitpid(pid, &status, 0) == pid);
	if (out != NULL)
		*out = said;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int pki_teardown(void **state)
{
	(void)state;
	pki_dir_free();
	return 0;
}
