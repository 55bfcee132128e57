/* Enrolment over Secure Transport: RFC 7030 with the corrections of RFC 8951. What a server asks for by csrattrs is not asked
 * after: the request is csmd's, and a CA that wants more in it refuses it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>
#include "daemon/enrol/certs.h"
#include "daemon/enrol/task.h"

#define ACCEPT "application/pkcs7-mime"
#define RETRY_S 60u /* where a server that says "later" does not say when */

static int path_of(struct task *t, const char *operation, char path[static 512])
{
	int r = 0;
	size_t n;

	snprintf(path, 512, "/.well-known/est/");
	if (t->job.label.p != NULL && t->job.label.n > 0) {
		r = csm_rest_escape(t->job.label, path, 480);
		n = strlen(path);
		snprintf(path + n, 512 - n, "/");
	}
	n = strlen(path);
	snprintf(path + n, 512 - n, "%s", operation);
	return r == 0 ? 0 : task_fail(t, r, "the label is too long");
}

static int cacerts(struct task *t, struct csm_rest *rest, struct csm_buf *out)
{
	char path[512];
	struct csm_rest_req req = {.method = "GET", .path = path, .accept = ACCEPT, .redirects = true};
	struct csm_rest_res res;
	int r = path_of(t, "cacerts", path);

	if (r != 0)
		return r;
	csm_rest_res_init(&res);
	r = task_note(t, &res, csm_rest_send(rest, &req, &res));
	if (r == 0 && (r = certs_read((struct csm_bin){csm_buf_ptr(&res.body), res.body.len}, out)) != 0)
		r = task_fail(t, r, "the server's answer to cacerts has no certificates");
	csm_rest_res_clear(&res);
	return r;
}

/* Base64 in lines of 64, as RFC 7030 shows it and every server takes it. */
static int csr_text(struct task *t, struct csm_buf *out)
{
	EVP_ENCODE_CTX *e = EVP_ENCODE_CTX_new();
	uint8_t *to = NULL;
	int n = 0, last = 0, r = t->job.csr.p == NULL ? CSM_EINVALID : CSM_ENOMEM;

	if (e == NULL || t->job.csr.p == NULL || csm_buf_reserve(out, 2 * t->job.csr.n + 128, &to) != 0)
		goto out;
	EVP_EncodeInit(e);
	if (EVP_EncodeUpdate(e, to, &n, t->job.csr.p, (int)t->job.csr.n) != 1)
		goto out;
	EVP_EncodeFinal(e, to + n, &last);
	csm_buf_commit(out, (size_t)n + (size_t)last);
	r = 0;
out:
	EVP_ENCODE_CTX_free(e);
	return r == 0 ? 0 : task_fail(t, r, "the job has no request");
}

/* Many servers give the certificate alone (RFC 7030 4.2.3): the issuers between it and an anchor are told by cacerts. */
static int take(struct task *t, struct csm_rest *rest, const struct csm_rest_res *res)
{
	struct csm_bin more;
	struct csm_buf certs, known;
	int r;

	csm_buf_init(&certs, t->seen.max, false);
	csm_buf_init(&known, t->seen.max, false);
	r = certs_read((struct csm_bin){csm_buf_ptr(&res->body), res->body.len}, &certs);
	if (r != 0)
		r = task_fail(t, r, "the server's answer has no certificates");
	else
		r = task_take_chain(t, (struct csm_bin){csm_buf_ptr(&certs), certs.len}, (struct csm_bin){NULL, 0});
	if (r == 0 && !certs_end_at((struct csm_bin){csm_buf_ptr(&t->chain), t->chain.len}, task_anchors(t)) &&
		cacerts(t, rest, &known) == 0) {
		csm_buf_reset(&t->chain);
		more = (struct csm_bin){csm_buf_ptr(&known), known.len};
		r = task_take_chain(t, (struct csm_bin){csm_buf_ptr(&certs), certs.len}, more);
	}
	csm_buf_free(&certs);
	csm_buf_free(&known);
	return r;
}

static int enrol(struct task *t, struct csm_rest *rest, const char *operation)
{
	char path[512];
	struct csm_rest_req req = {
		.method = "POST", .path = path, .accept = ACCEPT, .type = "application/pkcs10", .base64 = true,
		.redirects = true};
	struct csm_rest_res res;
	struct csm_buf body;
	int r = path_of(t, operation, path);

	if (r != 0)
		return r;
	csm_rest_res_init(&res);
	csm_buf_init(&body, 4 * CSM_CSR_MAX, false);
	if ((r = csr_text(t, &body)) != 0)
		goto out;
	req.body = (struct csm_bin){csm_buf_ptr(&body), body.len};
	r = task_note(t, &res, csm_rest_send(rest, &req, &res));
	if (r == 0 && res.status == 202) {
		t->retry_after_s = t->retry ? t->retry_after_s : RETRY_S;
		t->retry = true;
		r = task_fail(t, CSM_EBUSY, "the request waits for an approval");
	} else if (r == 0) {
		r = take(t, rest, &res);
	}
out:
	csm_rest_res_clear(&res);
	csm_buf_free(&body);
	return r;
}

static int run(struct task *t, struct csm_rest *rest)
{
	if (task_is(t, "enrol"))
		return enrol(t, rest, "simpleenroll");
	if (task_is(t, "renew"))
		return enrol(t, rest, "simplereenroll");
	if (task_is(t, "cacerts")) {
		csm_buf_reset(&t->anchors);
		return cacerts(t, rest, &t->anchors);
	}
	return task_fail(t, CSM_EUNSUPPORTED, "EST has no such thing");
}

const struct protocol protocol_est = {.name = "est", .cacerts = cacerts, .run = run, .basic = true};
