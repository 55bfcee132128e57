/* Any bytes as a server's answer to csm-enrol. The first byte says what for: a refusal, which gives a code of the wire and a text that
 * can be printed; certificates in JSON; or certificates in any other form. What is read as certificates can be put in order for
 * the key of each of them, the chain begins with one of that key, and is read again as it is. */
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include "daemon/enrol/certs.h"
#include "libclient/rest/rest_int.h"
#include "proto-spec/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void refused(const char *type, struct csm_bin body)
{
	struct csm_rest_res res;
	int code;

	csm_rest_res_init(&res);
	res.status = 403;
	snprintf(res.type, sizeof(res.type), "%s", type);
	must(csm_buf_put(&res.body, body.p, body.n) == 0);
	code = rest_refusal(&res);
	must(code > 0 && code < CSM_EUNREACHABLE);
	for (const char *p = res.why; *p != '\0'; p++)
		must(*p >= ' ' && *p <= '~');
	for (const char *p = res.error; *p != '\0'; p++)
		must(*p >= ' ' && *p <= '~');
	csm_rest_res_clear(&res);
}

/* A request for this certificate's key, without a signature: only its key is looked at. */
static int request_for(X509 *x, uint8_t **der)
{
	EVP_PKEY *key = X509_get0_pubkey(x);
	X509_REQ *req = key != NULL ? X509_REQ_new() : NULL;
	int n = req != NULL && X509_REQ_set_pubkey(req, key) == 1 ? i2d_X509_REQ(req, der) : -1;

	X509_REQ_free(req);
	ERR_clear_error();
	return n;
}

static void order(struct csm_bin certs, X509 *x)
{
	struct csm_buf chain, again;
	uint8_t *der = NULL;
	int n = request_for(x, &der);
	const unsigned char *p;
	X509 *first;

	if (n <= 0)
		return;
	csm_buf_init(&chain, CSM_CERT_CHAIN_MAX, false);
	csm_buf_init(&again, CSM_CERT_CHAIN_MAX, false);
	if (certs_order(certs, certs, certs, (struct csm_bin){der, (size_t)n}, &chain) == 0) {
		struct csm_bin out = {csm_buf_ptr(&chain), chain.len};

		p = out.p;
		first = d2i_X509(NULL, &p, (long)out.n);
		must(first != NULL && EVP_PKEY_eq(X509_get0_pubkey(first), X509_get0_pubkey(x)) == 1);
		X509_free(first);
		must(certs_read(out, &again) == 0 && again.len == out.n && memcmp(csm_buf_ptr(&again), out.p, out.n) == 0);
		(void)certs_end_at(out, certs);
	}
	csm_buf_free(&chain);
	csm_buf_free(&again);
	OPENSSL_free(der);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct csm_buf out;
	const unsigned char *p;
	json_error_t where;
	struct csm_bin body;
	json_t *json;
	int r;

	if (size < 1)
		return 0;
	body = (struct csm_bin){data + 1, size - 1};
	csm_buf_init(&out, 256u * 1024u, false);
	switch (data[0] % 4) {
	case 0:
		refused("application/json", body);
		break;
	case 1:
		refused("text/plain", body);
		break;
	case 2:
		json = json_loadb((const char *)body.p, body.n, JSON_REJECT_DUPLICATES, &where);
		must(certs_read_json(json, &out) == 0 || out.len == 0);
		json_decref(json);
		break;
	default:
		r = certs_read(body, &out);
		must((r == 0) == (out.len > 0));
		p = r == 0 ? csm_buf_ptr(&out) : NULL;
		while (p != NULL && p < csm_buf_ptr(&out) + out.len) {
			X509 *x = d2i_X509(NULL, &p, csm_buf_ptr(&out) + out.len - p);

			must(x != NULL);
			order((struct csm_bin){csm_buf_ptr(&out), out.len}, x);
			X509_free(x);
		}
	}
	must(ERR_peek_error() == 0);
	csm_buf_free(&out);
	return 0;
}
