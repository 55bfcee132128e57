#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include "daemon/svc/http_int.h"

static struct http_address **slot_of(struct csm_http *h, const uint8_t key[16])
{
	unsigned v = 0;
	struct http_address **at;

	for (unsigned i = 0; i < 16; i++)
		v = v * 31 + key[i];
	at = &h->address[v % HTTP_ADDRESSES];
	while (*at != NULL && memcmp((*at)->key, key, 16) != 0)
		at = &(*at)->next;
	return at;
}

static bool count(struct http_conn *c)
{
	struct http_address **at = slot_of(c->h, c->key);

	if (*at == NULL && (*at = calloc(1, sizeof(**at))) == NULL)
		return false;
	c->address = *at;
	memcpy(c->address->key, c->key, 16);
	return ++c->address->open <= c->h->opt.limits.connections_per_address;
}

void http_peer_release(struct http_conn *c)
{
	struct http_address **at;

	if (c->address != NULL && --c->address->open == 0) {
		at = slot_of(c->h, c->key);
		*at = c->address->next;
		free(c->address);
	}
	c->address = NULL;
	X509_free(c->cert);
	c->cert = NULL;
}

static bool take_local(struct http_conn *c, int fd)
{
	struct ucred who;
	socklen_t n = sizeof(who);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) != 0 || n != sizeof(who) || who.pid == 0)
		return false;
	c->uid = who.uid;
	snprintf(c->peer, sizeof(c->peer), "uid %u", (unsigned)who.uid);
	memcpy(c->key, &who.uid, sizeof(who.uid));
	return true;
}

static bool take_address(struct http_conn *c, const struct sockaddr_storage *from)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	char text[INET6_ADDRSTRLEN] = "?";
	const struct sockaddr_in *v4 = (const void *)from;
	const struct sockaddr_in6 *v6 = (const void *)from;

	if (from->ss_family == AF_INET) {
		memcpy(c->key, mapped, 12);
		memcpy(c->key + 12, &v4->sin_addr, 4);
		inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
		snprintf(c->peer, sizeof(c->peer), "%s:%u", text, ntohs(v4->sin_port));
		return true;
	}
	if (from->ss_family != AF_INET6)
		return false;
	memcpy(c->key, &v6->sin6_addr, IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) ? 16 : 8);
	inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
	snprintf(c->peer, sizeof(c->peer), "[%s]:%u", text, ntohs(v6->sin6_port));
	return true;
}

bool http_peer_take(struct http_conn *c, int fd)
{
	struct sockaddr_storage from = {.ss_family = AF_UNSPEC};
	socklen_t n = sizeof(from);

	c->uid = (uid_t)-1;
	if (c->door->door == CSM_HTTP_LOCAL)
		return take_local(c, fd);
	if (getpeername(fd, (struct sockaddr *)&from, &n) != 0 || !take_address(c, &from))
		return false;
	if (csm_rates_take(c->h->new_rates, c->key, sizeof(c->key), http_now_ms(), NULL) != 0 || !count(c)) {
		atomic_fetch_add(&c->h->n_refused, 1);
		return false;
	}
	return true;
}

bool http_peer_tls_done(struct http_conn *c)
{
	struct tm end;

	c->cert = SSL_get1_peer_certificate(c->ssl);
	if (c->cert == NULL)
		return true;
	if (SSL_get_verify_result(c->ssl) != X509_V_OK || ASN1_TIME_to_tm(X509_get0_notAfter(c->cert), &end) != 1)
		return false;
	c->cert_end = timegm(&end);
	return true;
}
