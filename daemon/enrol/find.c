#include <ares.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include "daemon/enrol/find.h"
#include "plugins/remote/channel.h"

#define WHY 256u
#define REFUSE(r, why, ...) (snprintf(why, WHY, __VA_ARGS__), r)
#define QUERY_MS 2000 /* then the next try, or the next server */

static const char *own_servers, *own_url;

int find_prepare(const char *servers, const char *from_env)
{
	own_servers = servers;
	own_url = from_env != NULL && *from_env != '\0' ? from_env : NULL;
	return ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS ? 0 : CSM_ENOMEM;
}

bool find_is_stale(void)
{
	static const char *const files[] = {"/etc/resolv.conf", "/etc/hosts"};
	struct stat st;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		int fd = open(files[i], O_RDONLY | O_CLOEXEC);

		if (fd < 0 && errno == EACCES && stat(files[i], &st) == 0 && (st.st_mode & S_IROTH) != 0)
			return true;
		if (fd >= 0)
			close(fd);
	}
	return false;
}

/* ---- one question ---- */

static int open_channel(ares_channel *ret)
{
	struct ares_options opt = {.timeout = QUERY_MS, .tries = 3};
	int r = ares_init_options(ret, &opt, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);

	if (r == ARES_SUCCESS && own_servers != NULL && (r = ares_set_servers_ports_csv(*ret, own_servers)) != ARES_SUCCESS)
		ares_destroy(*ret);
	return r == ARES_SUCCESS ? 0 : CSM_ENOMEM;
}

/* Until the answer is there, or the time is over. */
static int wait_for(ares_channel ch, const bool *done, int64_t deadline_ms)
{
	while (!*done) {
		ares_socket_t socks[ARES_GETSOCK_MAXNUM];
		struct pollfd p[ARES_GETSOCK_MAXNUM];
		unsigned mask = (unsigned)ares_getsock(ch, socks, ARES_GETSOCK_MAXNUM); /* read, then write: 16 bits each */
		int64_t left = deadline_ms - csm_channel_now_ms();
		struct timeval most = {left / 1000, left % 1000 * 1000}, room, *next;
		nfds_t n = 0;

		if (left <= 0)
			return CSM_ETIMEOUT;
		for (unsigned i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
			/* c-ares' own macros shift a bit into the sign of an int */
			short events = (short)((mask & 1u << i ? POLLIN : 0) | (mask & 1u << (i + ARES_GETSOCK_MAXNUM) ? POLLOUT : 0));

			if (events != 0)
				p[n++] = (struct pollfd){.fd = socks[i], .events = events};
		}
		next = ares_timeout(ch, &most, &room);
		if (n == 0)
			return CSM_EUNREACHABLE;
		if (poll(p, n, (int)(next->tv_sec * 1000 + next->tv_usec / 1000) + 1) < 0 && errno != EINTR)
			return CSM_ESYSTEM;
		for (nfds_t i = 0; i < n; i++)
			ares_process_fd(ch, p[i].revents & (POLLIN | POLLERR | POLLHUP) ? p[i].fd : ARES_SOCKET_BAD,
				p[i].revents & POLLOUT ? p[i].fd : ARES_SOCKET_BAD);
	}
	return 0;
}

/* ---- addresses ---- */

struct lookup {
	bool done;
	int status;
	char *out;
	size_t n;
};

static void on_addresses(void *arg, int status, int timeouts, struct ares_addrinfo *all)
{
	struct lookup *l = arg;

	(void)timeouts;
	l->done = true;
	l->status = status;
	for (const struct ares_addrinfo_node *a = all != NULL ? all->nodes : NULL; a != NULL; a = a->ai_next) {
		bool six = a->ai_family == AF_INET6;
		const void *at = six ? (const void *)&((const struct sockaddr_in6 *)(const void *)a->ai_addr)->sin6_addr :
			(const void *)&((const struct sockaddr_in *)(const void *)a->ai_addr)->sin_addr;
		char text[INET6_ADDRSTRLEN];
		size_t room = FIND_ADDRESSES_MAX - l->n;
		int n;

		if ((!six && a->ai_family != AF_INET) || inet_ntop(a->ai_family, at, text, sizeof(text)) == NULL)
			continue;
		n = snprintf(l->out + l->n, room, six ? "%s[%s]" : "%s%s", l->n > 0 ? "," : "", text);
		if (n > 0 && (size_t)n < room)
			l->n += (size_t)n;
		else
			l->out[l->n] = '\0';
	}
	ares_freeaddrinfo(all);
}

/* The host in an URL; an address has none to be looked up. */
static bool host_of(const char *url, char host[static 256])
{
	const char *p = strstr(url, "://"), *end;

	p = p != NULL ? p + 3 : url;
	end = p + strcspn(p, ":/?#");
	if (*p == '[' || end == p || end - p > 255)
		return false;
	memcpy(host, p, (size_t)(end - p));
	host[end - p] = '\0';
	return inet_pton(AF_INET, host, (uint8_t[16]){0}) != 1;
}

int find_addresses(struct place *p, int64_t deadline_ms, char *why)
{
	struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct lookup l = {.out = p->addresses};
	ares_channel ch;
	char host[256];
	int r;

	p->addresses[0] = '\0';
	if (!host_of(p->url, host))
		return 0;
	if ((r = open_channel(&ch)) != 0)
		return REFUSE(r, why, "names cannot be looked up");
	ares_getaddrinfo(ch, host, NULL, &hints, on_addresses, &l);
	r = wait_for(ch, &l.done, deadline_ms);
	ares_destroy(ch);
	if (r == CSM_ETIMEOUT)
		return REFUSE(r, why, "%.150s: its address is not told in time", host);
	if (r != 0 || l.status != ARES_SUCCESS || l.n == 0)
		return REFUSE(CSM_EUNREACHABLE, why, "%.150s: no address: %s", host, r != 0 ? csm_err_text(r) : ares_strerror(l.status));
	return 0;
}

/* ---- SRV ---- */

struct srv_lookup {
	bool done;
	int status;
	const char *domain;
	struct places *to;
	size_t outside;
};

static bool is_within(const char *host, const char *domain)
{
	size_t h = strlen(host), d = strlen(domain);

	return h >= d && strcasecmp(host + h - d, domain) == 0 && (h == d || host[h - d - 1] == '.');
}

static bool is_host(const char *s)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._");

	return n > 0 && s[n] == '\0';
}

static void on_srv(void *arg, int status, int timeouts, unsigned char *answer, int len)
{
	struct srv_lookup *l = arg;
	struct ares_srv_reply *all = NULL;

	(void)timeouts;
	l->done = true;
	l->status = status == ARES_SUCCESS ? ares_parse_srv_reply(answer, len, &all) : status;
	for (const struct ares_srv_reply *s = all; s != NULL && l->to->n < FIND_MAX; s = s->next) {
		struct place *p = &l->to->p[l->to->n];

		if (!is_host(s->host) || !is_within(s->host, l->domain)) {
			l->outside++;
			continue;
		}
		*p = (struct place){.priority = s->priority, .weight = s->weight};
		snprintf(p->url, sizeof(p->url), "https://%s:%u", s->host, s->port);
		l->to->n++;
	}
	ares_free_data(all);
}

static void swap(struct place *a, struct place *b)
{
	struct place t = *a;

	*a = *b;
	*b = t;
}

static unsigned draw(unsigned below)
{
	uint32_t v = 0;

	/* Which of several servers that are as good is nobody's secret. */
	if (getrandom(&v, sizeof(v), 0) != sizeof(v))
		v = 0;
	return below > 0 ? v % below : 0;
}

/* RFC 2782: the lowest priority first; among equals each next one is drawn by weight, those without any hardly ever first. */
static void sort_places(struct places *all)
{
	for (size_t at = 0; at < all->n; at++) {
		unsigned lowest = all->p[at].priority, sum = 0, x;
		size_t i;

		for (i = at; i < all->n; i++)
			lowest = all->p[i].priority < lowest ? all->p[i].priority : lowest;
		for (i = at; i < all->n; i++)
			sum += all->p[i].priority == lowest ? all->p[i].weight * 100 + 1 : 0;
		x = draw(sum);
		for (i = at; i < all->n; i++) {
			unsigned share = all->p[i].priority == lowest ? all->p[i].weight * 100 + 1 : 0;

			if (share > x)
				break;
			x -= share;
		}
		swap(&all->p[at], &all->p[i < all->n ? i : at]);
	}
}

static int ask_srv(const char *domain, int64_t deadline_ms, struct places *ret, char *why)
{
	struct srv_lookup l = {.domain = domain, .to = ret};
	ares_channel ch;
	char name[300];
	int r;

	snprintf(name, sizeof(name), "_csm._tcp.%s", domain);
	if ((r = open_channel(&ch)) != 0)
		return REFUSE(r, why, "names cannot be looked up");
	ares_query(ch, name, ns_c_in, ns_t_srv, on_srv, &l);
	r = wait_for(ch, &l.done, deadline_ms);
	ares_destroy(ch);
	if (r == CSM_ETIMEOUT)
		return REFUSE(r, why, "%.150s: DNS does not answer in time", name);
	if (r != 0 || l.status != ARES_SUCCESS)
		return REFUSE(CSM_EUNREACHABLE, why, "%.150s: %s", name, r != 0 ? csm_err_text(r) : ares_strerror(l.status));
	if (ret->n == 0)
		return REFUSE(CSM_EUNREACHABLE, why, "%.150s: %s", name,
			l.outside > 0 ? "its targets are outside of the domain" : "it names no server");
	sort_places(ret);
	return 0;
}

int find_places(struct csm_str url, struct csm_str domain, int64_t deadline_ms, struct places *ret, char *why)
{
	char name[256];

	ret->n = 0;
	if (url.p != NULL || own_url != NULL) {
		struct csm_str from = url.p != NULL ? url : csm_str_of(own_url);

		if (from.n > CSM_ENROL_URL_MAX || memchr(from.p, '\0', from.n) != NULL)
			return REFUSE(CSM_EINVALID, why, "the URL is too long");
		ret->p[0] = (struct place){.priority = 0};
		memcpy(ret->p[0].url, from.p, from.n);
		ret->p[0].url[from.n] = '\0';
		ret->n = 1;
		return 0;
	}
	if (domain.p == NULL)
		return REFUSE(CSM_EINVALID, why, "neither a URL nor a domain is given to find the server by");
	if (domain.n == 0 || domain.n >= sizeof(name) || memchr(domain.p, '\0', domain.n) != NULL)
		return REFUSE(CSM_EINVALID, why, "the domain is none");
	memcpy(name, domain.p, domain.n);
	name[domain.n] = '\0';
	if (!is_host(name))
		return REFUSE(CSM_EINVALID, why, "the domain is none");
	return ask_srv(name, deadline_ms, ret, why);
}
