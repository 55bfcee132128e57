/* Certificates by HTTP, each from a request that was made and signed before, over connections that are kept: csm-server's REST
 * (TLS, a client certificate) and cfssl's. --socket is ADDRESS:PORT; for csm-server --key is a file with its certificate and key,
 * --module one with what is trusted. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "tests/bench/gen/gen.h"

#define MESSAGE_MAX 65536u
#define CSR_MAX 4096u
#define TIMEOUT_S 20

struct caller {
	int fd;
	SSL_CTX *ctx;
	SSL *ssl; /* NULL: without TLS */
	char request[MESSAGE_MAX];
	size_t request_len;
	char answer[MESSAGE_MAX + 1];
};

/* ---- the request ---- */

static X509_REQ *make_csr(EVP_PKEY *key)
{
	X509_REQ *req = X509_REQ_new();
	X509_NAME *name = req != NULL ? X509_REQ_get_subject_name(req) : NULL;
	STACK_OF(X509_EXTENSION) *exts = sk_X509_EXTENSION_new_null();
	X509_EXTENSION *san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:bench.example");

	if (name == NULL || exts == NULL || san == NULL || sk_X509_EXTENSION_push(exts, san) == 0 ||
		X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)"bench.example", -1, -1, 0) != 1 ||
		X509_REQ_add_extensions(req, exts) != 1 || X509_REQ_set_pubkey(req, key) != 1 || X509_REQ_sign(req, key, EVP_sha256()) <= 0) {
		X509_REQ_free(req);
		req = NULL;
	}
	sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
	return req;
}

/* PEM with its line ends as JSON has them. */
static int csr_json(char out[static CSR_MAX])
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	X509_REQ *req = key != NULL ? make_csr(key) : NULL;
	BIO *mem = BIO_new(BIO_s_mem());
	size_t at = 0;
	char *text;
	long n = 0;

	if (req != NULL && mem != NULL && PEM_write_bio_X509_REQ(mem, req) == 1)
		n = BIO_get_mem_data(mem, &text);
	for (long i = 0; i < n && at + 3 < CSR_MAX; i++) {
		if (text[i] == '\n')
			out[at++] = '\\';
		out[at++] = text[i] == '\n' ? 'n' : text[i];
	}
	out[at] = '\0';
	BIO_free(mem);
	X509_REQ_free(req);
	EVP_PKEY_free(key);
	return n > 0 ? 0 : CSM_EINTERNAL;
}

static int make_request(struct caller *c, const char *path, const char *field)
{
	char csr[CSR_MAX], body[CSR_MAX + 128];
	int n;

	if (csr_json(csr) != 0)
		return CSM_EINTERNAL;
	n = snprintf(body, sizeof(body), "{\"%s\":\"%s\"}", field, csr);
	n = snprintf(c->request, sizeof(c->request), "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
		"Content-Length: %d\r\n\r\n%s", path, n, body);
	if (n < 0 || (size_t)n >= sizeof(c->request))
		return CSM_EINTERNAL;
	c->request_len = (size_t)n;
	return 0;
}

/* ---- the connection ---- */

static int dial(const char *where)
{
	const struct timeval patience = {.tv_sec = TIMEOUT_S};
	const char *colon = where != NULL ? strrchr(where, ':') : NULL;
	struct sockaddr_in to = {.sin_family = AF_INET};
	char host[64];
	int fd, one = 1;

	if (colon == NULL || (size_t)(colon - where) >= sizeof(host))
		return -1;
	(void)snprintf(host, sizeof(host), "%.*s", (int)(colon - where), where);
	to.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	if (inet_pton(AF_INET, host, &to.sin_addr) != 1 || (fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
		return -1;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
		return fd;
	close(fd);
	return -1;
}

static int begin_tls(struct caller *c, const struct target *t)
{
	if ((c->ctx = SSL_CTX_new(TLS_client_method())) == NULL)
		return CSM_ENOMEM;
	SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_read_ahead(c->ctx, 1); /* as most clients read: a record's head and body at once */
	if (SSL_CTX_load_verify_locations(c->ctx, t->module, NULL) != 1 || SSL_CTX_use_certificate_chain_file(c->ctx, t->key) != 1 ||
		SSL_CTX_use_PrivateKey_file(c->ctx, t->key, SSL_FILETYPE_PEM) != 1)
		return CSM_EINVALID;
	if ((c->ssl = SSL_new(c->ctx)) == NULL || SSL_set_fd(c->ssl, c->fd) != 1 || SSL_set1_host(c->ssl, "localhost") != 1 ||
		SSL_connect(c->ssl) != 1)
		return CSM_EUNREACHABLE;
	return 0;
}

static int open_caller(const struct target *t, bool tls, const char *path, const char *field, void **ret)
{
	struct caller *c = calloc(1, sizeof(*c));
	int r;

	if (c == NULL)
		return CSM_ENOMEM;
	if ((r = make_request(c, path, field)) != 0 || (c->fd = dial(t->socket)) < 0 || (tls && (r = begin_tls(c, t)) != 0)) {
		fprintf(stderr, "load: no connection to %s\n", t->socket != NULL ? t->socket : "(none)");
		free(c);
		return r != 0 ? r : CSM_EUNREACHABLE;
	}
	*ret = c; /* kept to the end of the program */
	return 0;
}

static int open_csm(const struct target *t, void **ret)
{
	return open_caller(t, true, "/v1/cms/certificates", "csr", ret);
}

static int open_cfssl(const struct target *t, void **ret)
{
	return open_caller(t, false, "/api/v1/cfssl/sign", "certificate_request", ret);
}

/* ---- one certificate ---- */

static ssize_t take(struct caller *c, char *to, size_t n)
{
	return c->ssl != NULL ? SSL_read(c->ssl, to, (int)n) : recv(c->fd, to, n, 0);
}

static bool give(struct caller *c)
{
	if (c->ssl != NULL)
		return SSL_write(c->ssl, c->request, (int)c->request_len) == (int)c->request_len;
	return send(c->fd, c->request, c->request_len, MSG_NOSIGNAL) == (ssize_t)c->request_len;
}

/* Is the answer whole? By its length, or in chunks, of which the last is empty. */
static bool whole(const char *answer, size_t n)
{
	const char *body = strstr(answer, "\r\n\r\n"), *length;

	if (body == NULL)
		return false;
	body += 4;
	if ((length = strcasestr(answer, "\r\nContent-Length:")) != NULL && length < body)
		return n - (size_t)(body - answer) >= strtoul(length + 17, NULL, 10);
	return n >= 5 && memcmp(answer + n - 5, "0\r\n\r\n", 5) == 0;
}

static int call(void *state)
{
	struct caller *c = state;
	size_t n = 0;

	if (!give(c))
		return CSM_ECLOSED;
	do {
		ssize_t got = n < MESSAGE_MAX ? take(c, c->answer + n, MESSAGE_MAX - n) : 0;

		if (got <= 0)
			return CSM_ECLOSED;
		n += (size_t)got;
		c->answer[n] = '\0';
	} while (!whole(c->answer, n));
	if (strncmp(c->answer, "HTTP/1.1 20", 11) == 0 && strstr(c->answer, "BEGIN CERTIFICATE") != NULL)
		return 0;
	fprintf(stderr, "load: %.300s\n", c->answer);
	return CSM_EBACKEND;
}

const struct work works_issue[] = {
	{.name = "csm-issue", .open = open_csm, .call = call},
	{.name = "cfssl-issue", .open = open_cfssl, .call = call},
	{.name = NULL},
};
