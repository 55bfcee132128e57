/* csm-server as the commands `csm ca` and `csm token` ask it: by REST, or on its host over the administrator's socket. */
#ifndef CSM_CLI_SERVER_H
#define CSM_CLI_SERVER_H

#include "libclient/cli/json.h"
#include "libclient/rest/rest.h"

struct server;
/* CSM_SERVER with CSM_CACERT, and CSM_ADMIN_CERT with CSM_ADMIN_KEY, or CSM_TOKEN; without CSM_SERVER, or with `local`, the
 * socket CSM_SERVER_ADMIN_SOCKET. Protects OpenSSL's memory: before its first use. */
CSM_MUST int server_open(struct cli *cli, bool local, struct server **ret);
void server_close(struct server *s); /* NULL is a no-op */
/* What csm-server calls malformed (400) is told here already, and -EXIT_USAGE.
 * The answer's JSON, or NULL in *ret where it has none; the caller's. body may be NULL. */
CSM_MUST int server_call(struct server *s, const char *method, const char *path, const json_t *body, json_t **ret);
/* The answer as it is, the cursor of a next page in next ("": there is none). */
CSM_MUST int server_fetch(struct server *s, const char *path, struct csm_buf *out, char next[static CSM_REST_NEXT_MAX + 1]);

/* A path of parts: what people typed is escaped. "/v1/cms/ca" then "?issuer=" with a value, where there is one. */
struct path {
	char text[2048];
	size_t n;
	bool full, query;
};
void path_start(struct path *p, const char *text);
void path_segment(struct path *p, const char *typed);
/* NULL: not added. */
void path_query(struct path *p, const char *name, const char *typed);

/* A string of an object; CSM_EPROTOCOL where the server did not send it. */
CSM_MUST int server_text(const json_t *object, const char *name, const char **ret);
/* A PEM text, or with --der its bytes; with --json in a field of that name. */
CSM_MUST int server_put_pem(struct cli *cli, const char *pem, const char *label, const char *field);

/* ---- server_list.c ---- */
/* Prints with --json the object, else its plain values, one a line. Takes j. */
CSM_MUST int server_print(struct cli *cli, json_t *j);
/* The array `field` of a list's pages, which is all of them but for --limit and --after: a table of these columns, which NULL ends;
 * with --json the array, with --limit and --json as an
 * object with the array and `next`. */
CSM_MUST int server_list(struct cli *cli, struct server *s, const struct path *p, const char *field, const char *const *columns);
/* The same pages as csm-server makes a table of them: CSV on the command's output. */
CSM_MUST int server_csv(struct cli *cli, struct server *s, const struct path *p);
/* Each page of a list, of so many rows at most, as it came; until fn returns something else than 0. The page is borrowed. */
typedef int server_page_fn(void *arg, const json_t *page);
CSM_MUST int server_each_page(struct server *s, const struct path *p, uint64_t rows, server_page_fn *fn, void *arg);

#endif
