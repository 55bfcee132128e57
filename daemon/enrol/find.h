/* Where the server is: its URL, and the addresses of its host. Blocks up to a deadline. Any thread. */
#ifndef CSM_ENROL_FIND_H
#define CSM_ENROL_FIND_H

#include "libclient/base/name.h"
#include "proto-spec/limits.h"

#define FIND_MAX 8u
#define FIND_ADDRESSES_MAX 1024u

struct place {
	char url[CSM_ENROL_URL_MAX + 1];
	char addresses[FIND_ADDRESSES_MAX]; /* "1.2.3.4,[::1]"; "": the host is an address */
	/* of SRV */
	unsigned priority, weight;
};
struct places {
	struct place p[FIND_MAX]; /* in the order in which they are to be tried */
	size_t n;
};

/* Once, before threads. servers: DNS servers "ADDRESS[:PORT]" in place of resolv.conf's; NULL: those. from_env: what CSM_SERVER says,
 * NULL: nothing. Both live on. CSM_ENOMEM. */
CSM_MUST int find_prepare(const char *servers, const char *from_env);
/* The URL where one is given, else the environment's, else DNS SRV _csm._tcp.DOMAIN: by priority, then by weight (RFC 2782); a target
 * outside the domain is passed over. Addresses are looked up later, by find_addresses. why: at least 256 bytes.
 * CSM_EUNREACHABLE: nothing is found; CSM_EINVALID, CSM_ETIMEOUT, CSM_ENOMEM. */
CSM_MUST int find_places(struct csm_str url, struct csm_str domain, int64_t deadline_ms, struct places *ret, char *why);
CSM_MUST int find_addresses(struct place *p, int64_t deadline_ms, char *why);
/* Whether the files of the name service can no longer be read, since others have taken their places: for this process they are gone. */
bool find_is_stale(void);

#endif
