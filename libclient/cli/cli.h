/* What the files of csm(1) share: the table of commands, the parsed command line, input and output. */
#ifndef CSM_CLI_H
#define CSM_CLI_H

#include <stdio.h>
#include "libclient/client/internal.h"

#define EXIT_USAGE 2

/* Options, as bits in a command's row and as indices of their values. */
enum opt_id {
	O_HELP,
	O_JSON,
	O_SOCKET,
	O_TIMEOUT,
	O_TRUST_OVERFLOW,
	O_OUTPUT,
	O_ALG,
	O_BACKEND,
	O_USE,
	O_EXPORTABLE,
	O_EXISTING,
	O_REQUEST_ID,
	O_NAMESPACE,
	O_DER,
	O_SCHEME,
	O_DIGEST,
	O_SUBJECT,
	O_SAN,
	O_LABEL,
	O_VERSION,
	O_EXPECT,
	O_SECRET,
	O_ENV,
	O_CONTEXT,
	O_AS,
	O_LINES,
	O_FOLLOW,
	O_KEY,
	O_PEM,
	O_NONCE,
	O_CA,
	O_AK,
	O_SECRET_FILE,
	O_PROOF,
	O_ATTESTATION,
	O_TO,
	O_NAME,
	O_ACCEPT_EXPOSED,
	O_UNPROVEN,
	O_SIGNER,
	O_PCRS,
	O_REF,
	O_SHARES,
	O_THRESHOLD,
	O_ACCEPT_COUNTER,
	O_MAX_LIFE,
	O_PATH_LEN,
	O_PERMIT,
	O_EXCLUDE,
	O_RATE,
	O_PROFILE,
	O_CSR,
	O_NO_WAIT,
	O_REASON,
	O_CHAIN,
	O_TTL,
	O_USES,
	O_ANY_NAME,
	O_CSV,
	O_ISSUER,
	O_ADMIN,
	O_STATE,
	O_NODE,
	O_REQUESTER,
	O_SERIAL,
	O_EXPIRES_BEFORE,
	O_EXPIRES_AFTER,
	O_ISSUED_AFTER,
	O_LIMIT,
	O_AFTER,
	O_PASSPHRASE_FILE,
	O__COUNT
};
typedef unsigned __int128 opt_set;
#define OPT(id) ((opt_set)1 << (id))
/* No option: what the command writes to -o FILE may be read by everyone. */
#define OUTPUT_PUBLIC ((opt_set)1 << 127)
#define OPTS_GLOBAL (OPT(O_HELP) | OPT(O_JSON) | OPT(O_SOCKET) | OPT(O_TIMEOUT) | OPT(O_TRUST_OVERFLOW))

struct opt {
	const char *name;
	char letter;        /* 0: none */
	const char *arg;    /* its argument's name, NULL: takes none */
	const char *values; /* words for completion; "@file" */
	const char *help;
};
extern const struct opt cli_opts[O__COUNT];

#define OPT_LIST_MAX 64
struct cli {
	const struct command *cmd;
	struct csm *csm;
	const char *value[O__COUNT]; /* NULL: not given; "" for those without an argument */
	const char *list[OPT_LIST_MAX]; /* the values of --san, --as, --secret, --ca, --name, --permit and --exclude */
	unsigned char list_of[OPT_LIST_MAX]; /* which of them; only --permit and --exclude go together */
	size_t list_n;
	char **arg; /* what is not an option, after object and verb */
	size_t arg_n;
	bool json;
	int status; /* exit status where it is not a matter of errors */
	const char *about; /* the object that an error is told of; NULL: none */
};

enum cmd_socket { SOCK_NONE, SOCK_PUBLIC, SOCK_ADMIN_OF_ROOT, SOCK_ADMIN };

struct command {
	const char *object;
	const char *verb; /* NULL: the object is the whole command */
	const char *args;
	unsigned char min, max; /* arguments; max ARGS_ANY: any number */
	enum cmd_socket socket;
	opt_set opts;
	int method;       /* whose answer --json prints, -1: see json */
	const char *json; /* what --json prints where it is not just that */
	const char *help; /* one line, no full stop */
	const char *text; /* more for the manual, may be NULL */
	/* 0, a code CSM_E* (csm_error_message tells more), or -EXIT_USAGE with the message printed */
	int (*run)(struct cli *cli);
};
#define ARGS_ANY 255
extern const struct command cli_commands[];
extern const size_t cli_commands_n;

/* ---- main.c ---- */
/* "csm: ..." to stderr. */
void cli_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define cli_usage(...) client_same((cli_note(__VA_ARGS__), -EXIT_USAGE))

/* ---- help.c, man.c ---- */
void cli_help(FILE *f);
void cli_help_object(FILE *f, const char *object);
void cli_help_command(FILE *f, const struct command *cmd);
/* names.c. Both print what is wrong, and return -EXIT_USAGE. The former sets about. */
int cli_check_names(struct cli *cli);
int cli_check_count(const struct cli *cli);
void cli_synopsis(FILE *f, const struct command *cmd);
void cli_dump_man(FILE *f);
void cli_dump_completion(FILE *f);

/* ---- io.c ---- */
/* A whole file, or standard input for "-", appended to b; CSM_ETOO_LARGE above b's cap, CSM_ESYSTEM. */
CSM_MUST int io_read(const char *path, struct csm_buf *b);
/* The next n bytes at most; *got 0 at the end. path is what an error names; "-" is standard input. */
CSM_MUST int io_read_some(int fd, const char *path, void *p, size_t n, size_t *got);
CSM_MUST int io_write(int fd, const void *p, size_t n);
/* Somebody else's text for a terminal: '?' for each byte of what it would act on, newlines excepted where they are wanted. */
void put_plain(FILE *f, const char *p, size_t n, bool lines);
/* Where output goes: -o FILE or stdout. Binary output is refused on a terminal. A file is made 0600, or,
 * where the command is OUTPUT_PUBLIC, as the umask says or as the one that it replaces; it gets its name only when
 * it is whole. */
struct out {
	int fd;
	const char *path;
	char *temp;
};
CSM_MUST int out_open(struct cli *cli, bool binary, struct out *o);
/* r: what was so far; a file is dropped where it is not 0. Returns r, or the error of closing. */
CSM_MUST int out_close(struct out *o, int r);
/* All of it at once. */
CSM_MUST int out_put(struct cli *cli, bool binary, const void *p, size_t n);
/* DER to PEM and back; label "PUBLIC KEY". The buffer is appended to. */
CSM_MUST int pem_put(struct csm_buf *b, const char *label, const void *der, size_t n);
CSM_MUST int pem_get(const void *p, size_t n, const char *label, struct csm_buf *der);
/* A PUBLIC KEY in PEM (cmd_attest.c); OpenSSL's EVP_PKEY. */
struct evp_pkey_st;
CSM_MUST int public_of_file(const char *path, struct evp_pkey_st **ret);
CSM_MUST int parse_u64(const char *what, const char *s, uint64_t max, uint64_t *ret);
/* "90d", "10y": seconds, at most max. A year has 365 days. */
CSM_MUST int parse_life(const char *what, const char *s, uint64_t max, uint64_t *ret);

/* "2026-01-02", "2026-01-02T03:04:05Z", seconds since 1970, or from now on "+30d" and "-7d". */
CSM_MUST int parse_time(const char *what, const char *s, uint64_t *ret);

/* ---- prompt.c ---- */
/* A line from the terminal, not shown as it is typed, and typed twice; b is empty. */
CSM_MUST int prompt_secret(struct csm_str name, struct csm_buf *b);
/* The same of what is known already: typed once. */
CSM_MUST int prompt_passphrase(struct csm_str name, struct csm_buf *b);

/* ---- print.c, json.c ---- */
/* Print an answer: with --json as one object, else as lines "field: value". */
CSM_MUST int print_reply(struct cli *cli, struct csm_view v);
/* Call a method and print its answer. */
CSM_MUST int cli_show(struct cli *cli, enum csm_method_id m, void *msg);
/* From now on jansson's memory is locked, and wiped when it is freed. */
void json_protect(void);
CSM_MUST int print_bytes(struct cli *cli, const char *field, const void *p, size_t n);
CSM_MUST int print_text_field(struct cli *cli, const char *field, const char *s, size_t n);
/* Pages of a list, printed as one JSON array or as a table. */
struct printer;
CSM_MUST int printer_new(struct cli *cli, struct printer **ret);
CSM_MUST int printer_add(struct printer *p, struct csm_view item);
/* Prints, and frees p whatever the result; with r not 0 nothing is printed, and r returned. */
CSM_MUST int printer_end(struct printer *p, int r);
/* "2026-01-02T03:04:05Z" */
const char *time_text(uint64_t t, char buf[static 32]);

/* Pages of a list method, until there are no more; after is its request's field. */
CSM_MUST int cli_list(struct cli *cli, enum csm_method_id m, void *msg, struct csm_str *after, const char *field);

/* ---- certs.c ---- */
/* The CERTIFICATE blocks of a PEM text one after the other, other blocks left out; DER is appended as it is. */
CSM_MUST int certs_of_file(const char *path, struct csm_buf *der);

/* ---- audit_files.c: the files of an audit log, oldest first ---- */
struct audit_files {
	char **path;
	int *fd; /* -1: not open yet */
	size_t n;
};
/* All of a folder, or those that are given; CSM_ESYSTEM, CSM_ENOT_FOUND: there is none. */
CSM_MUST int audit_files_of(const char *folder, struct audit_files *ret);
CSM_MUST int audit_files_given(char *const *path, size_t n, struct audit_files *ret);
void audit_files_free(struct audit_files *f);
/* Its descriptor, opened on demand and f's; *ret -1: the oldest one, which csmd has removed meanwhile. */
CSM_MUST int audit_file_open(struct audit_files *f, size_t i, int *ret);
/* The number of its first line; 0: there is none. */
uint64_t audit_file_first(int fd);
/* Lines without their newlines, whole up to CSM_CHAIN_LINE_MAX, longer ones cut; torn: half a line at the end. */
typedef void audit_line_fn(void *arg, const char *p, size_t n, bool torn);
CSM_MUST int audit_file_read(int fd, const char *path, audit_line_fn *fn, void *arg);

/* ---- issuer.c: what an issuer's key may sign ---- */
struct issuer_args {
	struct csm_msg_issuer_rules rules; /* its arrays are below */
	struct csm_str permitted[CSM_ISSUER_NAMES_MAX], excluded[CSM_ISSUER_NAMES_MAX];
};
/* wanted: for such a key, else none of its options may be there. -EXIT_USAGE, with the message printed. */
CSM_MUST int issuer_rules(const struct cli *cli, struct issuer_args *a, bool wanted);

/* cmd_cert.c: a certificate as csm cert show prints it. */
CSM_MUST int cert_print(struct cli *cli, const struct csm_msg_cert_info *info);

/* ---- the commands ---- */
int cmd_status(struct cli *cli);
int cmd_whoami(struct cli *cli);
int cmd_metrics(struct cli *cli);
int cmd_key_create(struct cli *cli);
int cmd_key_list(struct cli *cli);
int cmd_key_show(struct cli *cli);
int cmd_key_public(struct cli *cli);
int cmd_key_reference(struct cli *cli);
int cmd_key_delete(struct cli *cli);
int cmd_key_attest(struct cli *cli);
int cmd_attest_verify(struct cli *cli);
int cmd_attest_challenge(struct cli *cli);
int cmd_attest_activate(struct cli *cli);
int cmd_key_import(struct cli *cli);
int cmd_key_export(struct cli *cli);
int cmd_wrap_key(struct cli *cli);
int cmd_sign(struct cli *cli);
int cmd_decrypt(struct cli *cli);
int cmd_derive(struct cli *cli);
int cmd_csr(struct cli *cli);
int cmd_cert_install(struct cli *cli);
int cmd_cert_list(struct cli *cli);
int cmd_cert_show(struct cli *cli);
int cmd_cert_export(struct cli *cli);
int cmd_cert_delete(struct cli *cli);
int cmd_cert_enrol(struct cli *cli);
int cmd_cert_renew(struct cli *cli);
int cmd_cert_revoke(struct cli *cli);
int cmd_cert_watch(struct cli *cli);
int cmd_ca_init(struct cli *cli);
int cmd_ca_import(struct cli *cli);
int cmd_ca_show(struct cli *cli);
int cmd_ca_crl(struct cli *cli);
int cmd_ca_cert_list(struct cli *cli);
int cmd_ca_cert_export(struct cli *cli);
int cmd_ca_cert_signer(struct cli *cli);
int cmd_ca_cert_verify(struct cli *cli);
int cmd_ca_cert_show(struct cli *cli);
int cmd_ca_cert_revoke(struct cli *cli);
int cmd_ca_request_list(struct cli *cli);
int cmd_ca_request_show(struct cli *cli);
int cmd_ca_request_approve(struct cli *cli);
int cmd_ca_request_deny(struct cli *cli);
int cmd_ca_report(struct cli *cli);
int cmd_token_create(struct cli *cli);
int cmd_token_list(struct cli *cli);
int cmd_token_revoke(struct cli *cli);
int cmd_domain_create(struct cli *cli);
int cmd_domain_list(struct cli *cli);
int cmd_domain_show(struct cli *cli);
int cmd_domain_delete(struct cli *cli);
int cmd_secret_set(struct cli *cli);
int cmd_secret_get(struct cli *cli);
int cmd_secret_list(struct cli *cli);
int cmd_secret_delete(struct cli *cli);
int cmd_exec(struct cli *cli);
int cmd_random(struct cli *cli);
int cmd_seal(struct cli *cli);
int cmd_unseal(struct cli *cli);
int cmd_policy_check(struct cli *cli);
int cmd_policy_explain(struct cli *cli);
int cmd_policy_reload(struct cli *cli);
int cmd_store_accept(struct cli *cli);
int cmd_reseal(struct cli *cli);
int cmd_approval_sign(struct cli *cli);
int cmd_recovery_status(struct cli *cli);
int cmd_recovery_create(struct cli *cli);
int cmd_recovery_restore(struct cli *cli);
int cmd_audit_verify(struct cli *cli);
int cmd_audit_tail(struct cli *cli);
int cmd_help(struct cli *cli);

#endif
