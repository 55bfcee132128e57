/* The common calls on keys. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "libclient/client/internal.h"

#define USES_MAX 4

_Static_assert(CSM_SIGNATURE_BYTES == CSM_SIGNATURE_MAX && CSM_PUBLIC_BYTES == CSM_SPKI_MAX &&
		       CSM_REQUEST_BYTES == CSM_CSR_MAX && CSM_CHAIN_BYTES == CSM_CERT_CHAIN_MAX && CSM_SEAL_DATA_BYTES == CSM_SEAL_MAX &&
		       CSM_WRAPPED_BYTES == CSM_WRAPPED_MAX && CSM_ATTESTATION_BYTES == CSM_ATTESTATION_MAX,
	"csm.h names the same sizes as limits.h");

int client_give(struct csm_bin from, void *out, size_t *len)
{
	size_t room = *len;

	*len = from.n;
	if (from.n > room)
		return client_err(CSM_ETOO_LARGE, "the result needs %zu bytes", from.n);
	if (from.n > 0)
		memcpy(out, from.p, from.n);
	return 0;
}

struct csm_bin client_bin(const void *p, size_t n)
{
	/* a present empty value is not an absent one */
	return (struct csm_bin){n == 0 ? (const uint8_t *)"" : p, n};
}

int csm_ping(struct csm *c)
{
	struct csm_msg_ping_req req = {0};

	return client_call_new(c, CSM_M_PING, &req, NULL);
}

int csm_whoami(struct csm *c, struct csm_reply **ret)
{
	struct csm_msg_empty req = {0};

	return client_call_new(c, CSM_M_WHOAMI, &req, ret);
}

int csm_status(struct csm *c, struct csm_reply **ret)
{
	struct csm_msg_empty req = {0};

	return client_call_new(c, CSM_M_STATUS, &req, ret);
}

/* "a,b" into its parts; CSM_EINVALID for more than n of them. */
static int split_uses(const char *s, struct csm_str *v, size_t n, size_t *ret)
{
	size_t k = 0;

	while (s != NULL && *s != '\0') {
		size_t len = strcspn(s, ",");

		if (k == n)
			return client_err(CSM_EINVALID, "too many uses");
		v[k++] = (struct csm_str){s, len};
		s += len;
		s += *s == ',';
	}
	*ret = k;
	return 0;
}

int csm_key_create(struct csm *c, const char *key, const char *alg, const char *backend, const char *use,
	struct csm_reply **ret)
{
	struct csm_str uses[USES_MAX];
	struct csm_msg_key_create_req req = {
		.key = csm_str_of(key),
		.alg = csm_str_of(alg),
		.backend = csm_str_of(backend),
		.use = {.v = uses},
	};
	int r = split_uses(use, uses, USES_MAX, &req.use.n);

	return r != 0 ? r : client_call_new(c, CSM_M_KEY_CREATE, &req, ret);
}

int csm_key_show(struct csm *c, const char *key, struct csm_reply **ret)
{
	struct csm_msg_key_req req = {.key = csm_str_of(key)};

	return client_call_new(c, CSM_M_KEY_SHOW, &req, ret);
}

int csm_key_public(struct csm *c, const char *key, void *out, size_t *len)
{
	struct csm_msg_key_public_req req = {.key = csm_str_of(key)};
	struct csm_reply rep;
	int r = client_call(c, CSM_M_KEY_PUBLIC, &req, &rep);

	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_key_public_res *)rep.msg)->spki, out, len);
	reply_clear(&rep);
	return r;
}

int csm_key_delete(struct csm *c, const char *key)
{
	struct csm_msg_key_delete_req req = {.key = csm_str_of(key)};

	return client_call_new(c, CSM_M_KEY_DELETE, &req, NULL);
}

int csm_key_import(struct csm *c, const char *key, const void *wrapped, size_t wrapped_len, bool exposed,
	struct csm_reply **ret)
{
	struct csm_msg_key_import_req req = {
		.key = csm_str_of(key),
		.wrapped = client_bin(wrapped, wrapped_len),
		.exposed = {exposed, exposed},
	};

	return client_call_new(c, CSM_M_KEY_IMPORT, &req, ret);
}

int csm_key_export(struct csm *c, const char *key, void *out, size_t *len)
{
	struct csm_msg_key_export_req req = {.key = csm_str_of(key)};
	struct csm_reply rep;
	int r = client_call(c, CSM_M_KEY_EXPORT, &req, &rep);

	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_key_export_res *)rep.msg)->tss2, out, len);
	reply_clear(&rep);
	return r;
}

static int sign(struct csm *c, struct csm_msg_sign_req *req, void *out, size_t *len)
{
	struct csm_reply rep;
	int r = client_call(c, CSM_M_KEY_SIGN, req, &rep);

	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_sign_res *)rep.msg)->signature, out, len);
	reply_clear(&rep);
	return r;
}

int csm_key_sign(struct csm *c, const char *key, const char *scheme, const void *digest, size_t digest_len,
	void *out, size_t *len)
{
	struct csm_msg_sign_req req = {
		.key = csm_str_of(key),
		.scheme = csm_str_of(scheme),
		.digest = client_bin(digest, digest_len),
	};

	if (digest_len > CSM_DIGEST_MAX)
		return client_err(CSM_ETOO_LARGE, "a digest has at most %u bytes", CSM_DIGEST_MAX);
	return sign(c, &req, out, len);
}

static int sign_long(struct csm *c, const char *key, const char *scheme, const uint8_t *p, size_t n, void *out,
	size_t *len)
{
	struct csm_sign *s;
	int r = csm_sign_start(c, key, scheme, &s);

	if (r != 0)
		return r;
	r = csm_sign_update(s, p, n);
	if (r == 0)
		r = csm_sign_finish(s, out, len);
	csm_sign_free(s);
	return r;
}

int csm_key_sign_message(struct csm *c, const char *key, const char *scheme, const void *message, size_t message_len,
	void *out, size_t *len)
{
	struct csm_msg_sign_req req = {
		.key = csm_str_of(key),
		.scheme = csm_str_of(scheme),
		.message = client_bin(message, message_len),
	};
	int r;

	if (message_len <= CSM_SIGN_MESSAGE_MAX)
		return sign(c, &req, out, len);
	r = sign_long(c, key, scheme, message, message_len, out, len);
	/* the connection may have been one that waited idle across a restart of the daemon */
	return r == CSM_ECLOSED ? sign_long(c, key, scheme, message, message_len, out, len) : r;
}

/* ---- streams ---- */

struct csm_sign {
	struct client_stream s; /* first */
};

int client_stream_step(struct client_stream *s, enum csm_method_id m, const void *msg, struct csm_reply *rep)
{
	int r;

	client_err_clear();
	reply_init(rep, &csm_methods[m]);
	if (s->pid != getpid())
		return client_err(CSM_ESTATE, "a stream does not survive a fork");
	r = client_call_on(s->lease.conn, &csm_methods[m], msg, client_deadline(s->csm->set.timeout_ms), rep);
	s->good = rep->matched;
	if (r != 0)
		reply_clear(rep);
	return r;
}

int client_stream_open(struct client_stream *s, struct csm *c, enum csm_method_id m, const void *msg, struct csm_reply *rep)
{
	bool fresh = false;
	int r = CSM_EINTERNAL;

	client_err_clear();
	s->csm = c;
	s->pid = getpid();
	do {
		r = lease_take(c, &s->lease, fresh, client_deadline(c->set.timeout_ms));
		if (r != 0)
			break;
		r = client_stream_step(s, m, msg, rep);
		if (r != 0)
			lease_give(c, &s->lease, s->good);
		fresh = !fresh;
	} while (r == CSM_ECLOSED && fresh);
	s->open = r == 0;
	return r;
}

void client_stream_close(struct client_stream *s)
{
	/* In a child the connection is the parent's, and its slot has been dropped. An open stream is given
	 * up with its connection: the daemon forgets it without a further exchange. */
	if (s->pid == getpid())
		lease_give(s->csm, &s->lease, s->good && !s->open);
	else if (s->lease.slot == NULL)
		conn_close(&s->lease.own);
}

int csm_sign_start(struct csm *c, const char *key, const char *scheme, struct csm_sign **ret)
{
	struct csm_msg_sign_init_req req = {.key = csm_str_of(key), .scheme = csm_str_of(scheme)};
	struct csm_sign *s = calloc(1, sizeof(*s));
	struct csm_reply rep;
	int r;

	if (s == NULL)
		return client_err_plain(CSM_ENOMEM);
	if ((r = client_stream_open(&s->s, c, CSM_M_SIGN_INIT, &req, &rep)) != 0) {
		free(s);
		return r;
	}
	s->s.stream = ((struct csm_msg_sign_init_res *)rep.msg)->stream.v;
	reply_clear(&rep);
	*ret = s;
	return 0;
}

int csm_sign_update(struct csm_sign *s, const void *data, size_t len)
{
	const uint8_t *p = data;
	struct csm_reply rep;
	int r = s->s.open ? 0 : client_err(CSM_ESTATE, "the stream is used up");

	while (r == 0 && len > 0) {
		size_t n = len < CSM_SIGN_MESSAGE_MAX ? len : CSM_SIGN_MESSAGE_MAX;
		struct csm_msg_sign_update_req req = {.stream = {s->s.stream, true}, .data = {p, n}};

		r = client_stream_step(&s->s, CSM_M_SIGN_UPDATE, &req, &rep);
		if (r == 0)
			reply_clear(&rep);
		p += n;
		len -= n;
	}
	return r;
}

static int finish(struct csm_sign *s, bool cancel, struct csm_reply *rep)
{
	struct csm_msg_sign_final_req req = {.stream = {s->s.stream, true}, .cancel = {cancel, cancel}};

	s->s.open = false;
	return client_stream_step(&s->s, CSM_M_SIGN_FINAL, &req, rep);
}

int client_sign_finish(struct csm_sign *s, struct csm_reply **ret)
{
	struct csm_reply rep;
	int r = s->s.open ? finish(s, false, &rep) : client_err(CSM_ESTATE, "the stream is used up");

	return r != 0 ? r : reply_take(&rep, ret);
}

int csm_sign_finish(struct csm_sign *s, void *out, size_t *len)
{
	struct csm_reply rep;
	int r = s->s.open ? finish(s, false, &rep) : client_err(CSM_ESTATE, "the stream is used up");

	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_sign_res *)rep.msg)->signature, out, len);
	reply_clear(&rep);
	return r;
}

void csm_sign_free(struct csm_sign *s)
{
	if (s == NULL)
		return;
	client_stream_close(&s->s);
	free(s);
}

/* ---- decrypt, derive, certificate requests ---- */

int csm_key_decrypt(struct csm *c, const char *key, const char *scheme, const void *ciphertext, size_t ciphertext_len,
	void *out, size_t *len)
{
	struct csm_msg_decrypt_req req = {
		.key = csm_str_of(key),
		.scheme = csm_str_of(scheme),
		.ciphertext = client_bin(ciphertext, ciphertext_len),
	};
	struct csm_reply rep;
	int r = client_call(c, CSM_M_KEY_DECRYPT, &req, &rep);

	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_decrypt_res *)rep.msg)->plaintext, out, len);
	reply_clear(&rep);
	return r;
}

int csm_key_derive(struct csm *c, const char *key, const void *peer, size_t peer_len, void *out, size_t *len)
{
	struct csm_msg_derive_req req = {.key = csm_str_of(key), .peer = client_bin(peer, peer_len)};
	struct csm_reply rep;
	int r = client_call(c, CSM_M_KEY_DERIVE, &req, &rep);

	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_derive_res *)rep.msg)->shared, out, len);
	reply_clear(&rep);
	return r;
}

int csm_key_csr(struct csm *c, const char *key, const char *subject, const char *const *sans, size_t n, void *out,
	size_t *len)
{
	struct csm_str list[CSM_SANS_MAX];
	struct csm_msg_csr_req req = {.key = csm_str_of(key), .subject = csm_str_of(subject), .sans = {list, n}};
	struct csm_reply rep;
	size_t i;
	int r;

	if (n > CSM_SANS_MAX)
		return client_err(CSM_ETOO_LARGE, "at most %u alternative names", CSM_SANS_MAX);
	for (i = 0; i < n; i++)
		list[i] = csm_str_of(sans[i]);
	r = client_call(c, CSM_M_KEY_CSR, &req, &rep);
	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_csr_res *)rep.msg)->csr, out, len);
	reply_clear(&rep);
	return r;
}

int csm_key_attest(struct csm *c, const char *key, const void *nonce, size_t nonce_len, void *out, size_t *len)
{
	struct csm_msg_attest_req req = {.key = csm_str_of(key)};
	struct csm_reply rep;
	int r;

	if (nonce_len > 0)
		req.nonce = client_bin(nonce, nonce_len);
	r = client_call(c, CSM_M_KEY_ATTEST, &req, &rep);
	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_attest_res *)rep.msg)->statement, out, len);
	reply_clear(&rep);
	return r;
}

int csm_attest_activate(struct csm *csm, const struct csm_credential *c, void *proof, size_t *len)
{
	struct csm_msg_activate_req req = {
		.ak_name = client_bin(c->ak_name, c->ak_name_len),
		.ek_name = client_bin(c->ek_name, c->ek_name_len),
		.credential = client_bin(c->credential, c->credential_len),
		.secret = client_bin(c->secret, c->secret_len),
	};
	struct csm_reply rep;
	int r = client_call(csm, CSM_M_ATTEST_ACTIVATE, &req, &rep);

	if (r != 0)
		return r;
	r = client_give(((struct csm_msg_activate_res *)rep.msg)->proof, proof, len);
	reply_clear(&rep);
	return r;
}
