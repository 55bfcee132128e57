/* csm-server's REST. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include "daemon/enrol/certs.h"
#include "daemon/enrol/task.h"

static int cacerts(struct task *t, struct csm_rest *rest, struct csm_buf *out)
{
	struct csm_rest_req req = {.method = "GET", .path = "/v1/cms/ca"};
	struct csm_rest_res res;
	int r;

	csm_rest_res_init(&res);
	r = task_note(t, &res, csm_rest_send(rest, &req, &res));
	if (r == 0) {
		r = res.json != NULL ? certs_read_json(res.json, out) :
			certs_read((struct csm_bin){csm_buf_ptr(&res.body), res.body.len}, out);
		if (r != 0)
			r = task_fail(t, r, "the server's answer has no CA certificates");
	}
	csm_rest_res_clear(&res);
	return r;
}

static int csr_text(struct task *t, char **ret)
{
	size_t room = 4 * (t->job.csr.n / 3 + 1) + t->job.csr.n / 40 + 128;
	BIO *b = t->job.csr.p != NULL ? BIO_new(BIO_s_mem()) : NULL;
	char *text = calloc(1, room);
	int r = b == NULL || text == NULL ? CSM_ENOMEM : CSM_EINTERNAL;

	if (t->job.csr.p == NULL)
		r = task_fail(t, CSM_EINVALID, "the job has no request");
	else if (r != CSM_ENOMEM && PEM_write_bio(b, PEM_STRING_X509_REQ, "", t->job.csr.p, (long)t->job.csr.n) > 0 &&
		BIO_read(b, text, (int)room - 1) > 0) {
		*ret = text;
		text = NULL;
		r = 0;
	}
	free(text);
	BIO_free(b);
	return r;
}

/* The same request for the same certificate is the same wish: a retry after a lost answer gets the first one's. Keys that sign
 * alike each time make the same request for the next certificate too: csmd's `once` tells them apart. */
static bool idempotency(const struct task *t, char out[static 40])
{
	uint8_t d[SHA256_DIGEST_LENGTH] = {0};
	EVP_MD_CTX *h = EVP_MD_CTX_new();
	bool good;

	good = h != NULL && EVP_DigestInit_ex(h, EVP_sha256(), NULL) == 1 && EVP_DigestUpdate(h, t->job.what.p, t->job.what.n) == 1 &&
		EVP_DigestUpdate(h, t->job.csr.p, t->job.csr.n) == 1 && EVP_DigestUpdate(h, t->job.serial.p, t->job.serial.n) == 1 &&
		EVP_DigestUpdate(h, t->job.tls_chain.p, t->job.tls_chain.n) == 1 &&
		EVP_DigestUpdate(h, t->job.once.p, t->job.once.n) == 1 && EVP_DigestFinal_ex(h, d, NULL) == 1;
	EVP_MD_CTX_free(h);
	snprintf(out, 40, "csm-");
	for (size_t i = 0; i < 16; i++)
		snprintf(out + 4 + 2 * i, 3, "%02x", d[i]);
	return good;
}

static int enrol(struct task *t, struct csm_rest *rest, const char *path)
{
	struct csm_rest_req req = {.method = "POST", .path = path, .type = "application/json"};
	struct csm_rest_res res;
	struct csm_buf certs;
	char *csr = NULL, *text = NULL, key[40];
	json_t *body;
	int r = csr_text(t, &csr);

	if (r != 0)
		return r;
	csm_rest_res_init(&res);
	csm_buf_init(&certs, t->seen.max, false);
	body = json_pack("{s:s}", "csr", csr);
	r = CSM_ENOMEM;
	if (body == NULL ||
		(t->job.label.p != NULL &&
			json_object_set_new(body, "profile", json_stringn(t->job.label.p, t->job.label.n)) != 0) ||
		(t->job.serial.p != NULL &&
			json_object_set_new(body, "serial", json_stringn(t->job.serial.p, t->job.serial.n)) != 0) ||
		(t->job.ttl.set && json_object_set_new(body, "ttl", json_integer((json_int_t)t->job.ttl.v)) != 0) ||
		(text = json_dumps(body, JSON_COMPACT)) == NULL)
		goto out;
	req.idempotency = idempotency(t, key) ? key : NULL;
	req.body = (struct csm_bin){(const uint8_t *)text, strlen(text)};
	r = task_note(t, &res, csm_rest_send(rest, &req, &res));
	if (r == 0 && res.status == 202)
		r = task_fail(t, CSM_EBUSY, "the request waits for an approval");
	else if (r == 0 && (res.json == NULL || certs_read_json(res.json, &certs) != 0))
		r = task_fail(t, CSM_EPROTOCOL, "the server's answer has no certificate");
	if (r == 0)
		r = task_take_chain(t, (struct csm_bin){csm_buf_ptr(&certs), certs.len}, (struct csm_bin){NULL, 0});
out:
	csm_rest_res_clear(&res);
	csm_buf_free(&certs);
	json_decref(body);
	free(text); /* jansson has malloc here, see csm_rest_prepare */
	free(csr);
	return r;
}

static int revoke(struct task *t, struct csm_rest *rest)
{
	char path[512] = "/v1/cms/certificates/";
	struct csm_rest_res res;
	json_t *body;
	int r = t->job.serial.p != NULL ? csm_rest_escape(t->job.serial, path, sizeof(path) - 8) : CSM_EINVALID;

	if (r != 0)
		return task_fail(t, r, "the job has no serial");
	snprintf(path + strlen(path), 8, "/revoke");
	csm_rest_res_init(&res);
	body = json_object();
	if (body == NULL ||
		(t->job.reason.p != NULL && json_object_set_new(body, "reason", json_stringn(t->job.reason.p, t->job.reason.n)) != 0))
		r = CSM_ENOMEM;
	else
		r = task_note(t, &res, csm_rest_json(rest, "POST", path, body, &res));
	csm_rest_res_clear(&res);
	json_decref(body);
	return r;
}

static int usage(struct task *t, struct csm_rest *rest)
{
	struct csm_rest_req req = {.method = "POST", .path = "/v1/cms/usage", .type = "application/json", .body = t->job.body};
	struct csm_rest_res res;
	int r;

	if (t->job.body.p == NULL)
		return task_fail(t, CSM_EINVALID, "the job has no report");
	csm_rest_res_init(&res);
	r = task_note(t, &res, csm_rest_send(rest, &req, &res));
	csm_rest_res_clear(&res);
	return r;
}

static int run(struct task *t, struct csm_rest *rest)
{
	if (task_is(t, "enrol"))
		return enrol(t, rest, "/v1/cms/certificates");
	if (task_is(t, "renew"))
		return enrol(t, rest, "/v1/cms/renew");
	if (task_is(t, "revoke"))
		return revoke(t, rest);
	if (task_is(t, "usage"))
		return usage(t, rest);
	if (task_is(t, "cacerts")) {
		csm_buf_reset(&t->anchors);
		return cacerts(t, rest, &t->anchors);
	}
	return task_fail(t, CSM_EUNSUPPORTED, "no such job");
}

const struct protocol protocol_cms = {.name = "cms", .cacerts = cacerts, .run = run};
