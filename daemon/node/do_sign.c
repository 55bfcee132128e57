/* key.sign, and signatures of long messages in parts. */
#include <openssl/evp.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/node/connkey.h"
#include "daemon/node/enrol.h"
#include "daemon/node/keycall.h"

#define MESSAGE_OR_DIGEST "give either a digest or a message"
#define DIGEST_SIZE "the digest has not the size of the scheme's hash"

/* Hash by the scheme; 0 bytes for NONE. */
static int digest_of(enum csm_hash hash, struct csm_bin in, uint8_t out[static EVP_MAX_MD_SIZE], struct csm_bin *ret)
{
	const EVP_MD *md = EVP_get_digestbyname(csm_hash_name(hash));
	unsigned n = 0;

	if (md == NULL || EVP_Digest(in.p, in.n, out, &n, md, NULL) != 1)
		return CSM_ENOMEM;
	*ret = (struct csm_bin){out, n};
	return 0;
}

/* What the back end signs: the digest, or, for Ed25519, the message. */
static int signing_input(struct req *q, const struct csm_msg_sign_req *m, const struct csm_scheme *scheme,
	uint8_t digest[static EVP_MAX_MD_SIZE], struct csm_bin *ret)
{
	const char *why = MESSAGE_OR_DIGEST;
	int r = CSM_EINVALID;

	if ((m->digest.p == NULL) == (m->message.p == NULL))
		goto refuse;
	if (scheme->hash == CSM_HASH_NONE) {
		why = "this scheme signs a message, not a digest";
		if (m->message.p == NULL)
			goto refuse;
		*ret = m->message;
		return 0;
	}
	if (m->message.p != NULL) {
		why = NULL;
		r = digest_of(scheme->hash, m->message, digest, ret);
		if (r != 0)
			goto refuse;
		return 0;
	}
	why = DIGEST_SIZE;
	if (m->digest.n != csm_hash_size(scheme->hash))
		goto refuse;
	*ret = m->digest;
	return 0;
refuse:
	req_error(q, r, why);
	return r;
}

void do_KEY_SIGN(struct req *q)
{
	const struct csm_msg_sign_req *m = q->params;
	uint8_t digest[EVP_MAX_MD_SIZE];
	struct key_call call = {.what = KEY_WHAT_SIGN};
	struct key_found f;

	if (key_find(q, m->key, m->spki_sha256, CSM_USE_SIGN, &f) != 0)
		return;
	if (key_scheme(q, &f, m->scheme, &call.scheme) != 0 ||
		signing_input(q, m, &call.scheme, digest, &call.in) != 0) {
		req_end_read(q);
		return;
	}
	key_call_run(q, &f, &call);
}

/* ---- in parts ---- */

struct stream {
	uint64_t id;
	char key[CSM_KEYREF_MAX + 1]; /* full name */
	size_t key_len;
	uint8_t key_id[CSM_KEY_ID_LEN]; /* a key made anew under the name is another one */
	char spki_sha256[2 * crypto_hash_sha256_BYTES + 1]; /* by which it is found after a renewal for another */
	struct csm_scheme scheme;
	EVP_MD_CTX *md;
	struct stream *next;
};

static void stream_free(struct stream *s)
{
	if (s == NULL)
		return;
	EVP_MD_CTX_free(s->md);
	free(s);
}

void dispatch_forget(struct conn *c)
{
	struct stream *s;

	while ((s = c->streams) != NULL) {
		c->streams = s->next;
		stream_free(s);
	}
	connkey_drop_all(c);
	issue_forget(c);
	if (c->enrol_job != 0)
		enrol_channel_closed(c->loop->b->enrol, c->enrol_job, true);
}

static int stream_new(struct conn *c, const struct key_found *f, const struct csm_scheme *scheme, struct stream **ret)
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	struct stream *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return CSM_ENOMEM;
	s->md = EVP_MD_CTX_new();
	if (s->md == NULL || EVP_DigestInit_ex(s->md, EVP_get_digestbyname(csm_hash_name(scheme->hash)), NULL) != 1) {
		stream_free(s);
		return CSM_ENOMEM;
	}
	s->id = ++c->next_stream;
	s->key_len = f->object.text.n;
	memcpy(s->key, f->object.text.p, s->key_len);
	memcpy(s->key_id, f->rec.id, CSM_KEY_ID_LEN);
	crypto_hash_sha256(hash, f->rec.spki.p, f->rec.spki.n);
	sodium_bin2hex(s->spki_sha256, sizeof(s->spki_sha256), hash, sizeof(hash));
	s->scheme = *scheme;
	s->next = c->streams;
	c->streams = s;
	c->n_streams++;
	*ret = s;
	return 0;
}

void do_SIGN_INIT(struct req *q)
{
	const struct csm_msg_sign_init_req *m = q->params;
	struct csm_msg_sign_init_res res = {0};
	struct csm_scheme scheme;
	struct key_found f;
	struct stream *s;
	int r;

	if (key_find(q, m->key, m->spki_sha256, CSM_USE_SIGN, &f) != 0)
		return;
	r = key_scheme(q, &f, m->scheme, &scheme);
	if (r == 0 && scheme.hash == CSM_HASH_NONE)
		req_error(q, r = CSM_EUNSUPPORTED, "this scheme signs a message as a whole, at most 768 KiB");
	else if (r == 0 && q->conn->n_streams >= CSM_SIGN_STREAMS_MAX)
		req_error(q, r = CSM_EBUSY, "too many signatures in parts on this connection");
	else if (r == 0 && (r = stream_new(q->conn, &f, &scheme, &s)) != 0)
		req_error(q, r, NULL);
	req_end_read(q);
	if (r != 0)
		return;
	res.stream.v = s->id;
	req_result(q, &res);
}

static struct stream **find_stream(struct req *q, uint64_t id)
{
	struct stream **at;

	for (at = &q->conn->streams; *at != NULL; at = &(*at)->next)
		if ((*at)->id == id)
			return at;
	req_error(q, CSM_EINVALID, "there is no such stream on this connection");
	return NULL;
}

void do_SIGN_UPDATE(struct req *q)
{
	const struct csm_msg_sign_update_req *m = q->params;
	struct csm_msg_empty res = {0};
	struct stream **at = find_stream(q, m->stream.v);

	if (at == NULL)
		return;
	if (EVP_DigestUpdate((*at)->md, m->data.p, m->data.n) != 1)
		req_error(q, CSM_ENOMEM, NULL);
	else
		req_result(q, &res);
}

static void finish_stream(struct req *q, struct stream *s)
{
	struct key_call call = {.what = KEY_WHAT_SIGN, .scheme = s->scheme};
	uint8_t digest[EVP_MAX_MD_SIZE];
	struct key_found f;
	unsigned n = 0;

	if (EVP_DigestFinal_ex(s->md, digest, &n) != 1) {
		req_error(q, CSM_ENOMEM, NULL);
		return;
	}
	call.in = (struct csm_bin){digest, n};
	/* Name, policy and use are judged anew. */
	if (key_find(q, (struct csm_str){s->key, s->key_len}, csm_str_of(s->spki_sha256), CSM_USE_SIGN, &f) != 0)
		return;
	if (memcmp(f.rec.id, s->key_id, CSM_KEY_ID_LEN) != 0) {
		req_end_read(q);
		req_error(q, CSM_ECONFLICT, "the key was replaced since the signature was begun");
		return;
	}
	key_call_run(q, &f, &call);
}

void do_SIGN_FINAL(struct req *q)
{
	const struct csm_msg_sign_final_req *m = q->params;
	struct csm_msg_sign_res none = {.scheme = {"", 0}, .signature = {(const uint8_t *)"", 0}};
	struct stream **at = find_stream(q, m->stream.v), *s;

	if (at == NULL)
		return;
	s = *at;
	*at = s->next;
	q->conn->n_streams--;
	if (m->cancel.v)
		req_result(q, &none);
	else
		finish_stream(q, s);
	stream_free(s);
}
