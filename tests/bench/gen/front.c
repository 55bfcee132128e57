/* Keys of the node through what stands in front of csmd: libcsm, OpenSSL with the provider, and a TLS server. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <openssl/store.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "libclient/include/csm/csm.h"
#include "tests/bench/gen/gen.h"

/* ---- libcsm: --key names the key ---- */

struct signer {
	struct csm *csm;
	const char *key;
};

static int libcsm_open(const struct target *t, void **ret)
{
	struct signer *s = calloc(1, sizeof(*s));
	int r = s != NULL ? csm_new(&s->csm) : CSM_ENOMEM;

	if (r != 0) {
		free(s);
		return r;
	}
	s->key = t->key;
	*ret = s;
	return 0;
}

static int libcsm_call(void *state)
{
	struct signer *s = state;
	uint8_t signature[CSM_SIGNATURE_BYTES];
	size_t n = sizeof(signature);

	return csm_key_sign(s->csm, s->key, NULL, gen_digest(), 32, signature, &n);
}

/* ---- OpenSSL: --key is a URI, of a provider that OPENSSL_CONF has ---- */

static EVP_PKEY *store_key(const char *uri)
{
	OSSL_STORE_CTX *store = OSSL_STORE_open(uri, NULL, NULL, NULL, NULL);
	EVP_PKEY *key = NULL;

	while (store != NULL && key == NULL && !OSSL_STORE_eof(store)) {
		OSSL_STORE_INFO *info = OSSL_STORE_load(store);

		if (info != NULL && OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PKEY)
			key = OSSL_STORE_INFO_get1_PKEY(info);
		OSSL_STORE_INFO_free(info);
	}
	OSSL_STORE_close(store);
	return key;
}

static int store_open(const struct target *t, void **ret)
{
	EVP_PKEY *key = store_key(t->key);
	EVP_PKEY_CTX *ctx = key != NULL ? EVP_PKEY_CTX_new(key, NULL) : NULL;

	EVP_PKEY_free(key);
	if (ctx == NULL || EVP_PKEY_sign_init(ctx) != 1) {
		fprintf(stderr, "load: OpenSSL has no key %s\n", t->key);
		EVP_PKEY_CTX_free(ctx);
		return CSM_EBACKEND;
	}
	*ret = ctx;
	return 0;
}

static int store_call(void *state)
{
	uint8_t signature[CSM_SIGNATURE_BYTES];
	size_t n = sizeof(signature);

	return EVP_PKEY_sign(state, signature, &n, gen_digest(), 32) == 1 ? 0 : CSM_EBACKEND;
}

/* ---- TLS: --socket is a port of the loopback interface, --key the file of the CA ---- */

struct caller {
	SSL_CTX *ctx;
	struct sockaddr_in at;
	bool checked;
};

static int tls_open(const struct target *t, void **ret)
{
	struct caller *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return CSM_ENOMEM;
	c->at.sin_family = AF_INET;
	c->at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	c->at.sin_port = htons((uint16_t)strtoul(t->socket, NULL, 10));
	c->ctx = SSL_CTX_new(TLS_client_method());
	if (c->ctx == NULL || SSL_CTX_load_verify_file(c->ctx, t->key) != 1) {
		fprintf(stderr, "load: no certificate of a CA in %s\n", t->key);
		SSL_CTX_free(c->ctx);
		free(c);
		return CSM_EINVALID;
	}
	SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF);
	*ret = c;
	return 0;
}

static int tcp_connect(const struct sockaddr_in *at)
{
	/* A reset at the end: no port waits for late bytes, so a run does not use them up. */
	struct linger at_once = {.l_onoff = 1};
	struct timeval limit = {20, 0};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (const struct sockaddr *)at, sizeof(*at)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* A connection, a whole handshake, and away. The first one of a client checks the certificate; what follows leaves that
 * out, as it is the caller's work and not what is measured. */
static int tls_call(void *state)
{
	struct caller *c = state;
	SSL *ssl = SSL_new(c->ctx);
	int fd = ssl != NULL ? tcp_connect(&c->at) : -1;
	int r = CSM_EBACKEND;

	if (ssl != NULL && c->checked)
		SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
	if (fd >= 0 && SSL_set_fd(ssl, fd) == 1 && SSL_set1_host(ssl, "localhost") == 1 && SSL_connect(ssl) == 1 &&
		!SSL_session_reused(ssl))
		r = 0;
	else
		fprintf(stderr, "load: no handshake\n");
	if (r == 0)
		SSL_shutdown(ssl);
	c->checked = true;
	SSL_free(ssl);
	if (fd >= 0)
		close(fd);
	return r;
}

const struct work works_front[] = {
	{.name = "libcsm-sign", .open = libcsm_open, .call = libcsm_call},
	{.name = "store-sign", .open = store_open, .call = store_call},
	{.name = "tls-handshake", .open = tls_open, .call = tls_call},
	{.name = NULL},
};
