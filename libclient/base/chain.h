/* Lines of the audit log and how they hang together. Any thread.
 *
 * A line is one JSON object: it begins {"seq":N,"time":T,"event":"E" and ends ,"hash":"H"}, where H is BLAKE2b-256, in
 * hex, of the hash of the line before (32 bytes; zeros before the first) and of the line's own bytes up to the comma before
 * "hash". A `file` line (the first of each file) and a `break` line state the hash that they follow as "prev". So does a
 * `missing` line, which stands for lines that are not there: ,"prev":"P","first":F,"head":"X" says that lines F to N came
 * behind P, and that what follows goes on behind X, the hash of line N. A `checkpoint` line ends its bytes with ,"key":"K","signature":"S": Ed25519 over CSM_CHAIN_SIGNED, the hash of the line
 * before, and the line's bytes up to the comma before "signature". A `witness` line ends its bytes with ,"upto":N,"head":"H",
 * "ak":"A","signature":"S": over csm_chain_witness_text of line N and its hash H, by a key of the device's, of whose public
 * half (SubjectPublicKeyInfo) A is SHA-256, with SHA-256: DER for ECDSA, PKCS#1 v1.5 for RSA. */
#ifndef CSM_BASE_CHAIN_H
#define CSM_BASE_CHAIN_H

#include "libclient/base/name.h"

#define CSM_CHAIN_HASH 32u
#define CSM_CHAIN_KEY 32u
#define CSM_CHAIN_SIGNATURE 64u
#define CSM_CHAIN_LINE_MAX 2048u /* with its newline */
#define CSM_CHAIN_SIGNED "csm audit checkpoint"
#define CSM_CHAIN_WITNESS "csm audit witness"
#define CSM_CHAIN_WITNESS_TEXT (sizeof(CSM_CHAIN_WITNESS) - 1 + 8 + CSM_CHAIN_HASH)
#define CSM_CHAIN_WITNESS_MAX 512u /* bytes of a signature */

struct csm_chain_line {
	uint64_t seq;
	struct csm_str event;
	struct csm_bin body; /* what the hash covers, besides the hash before */
	uint8_t hash[CSM_CHAIN_HASH];
	uint8_t next[CSM_CHAIN_HASH]; /* what the line behind it follows: its own hash, or what a `missing` line states */
	uint64_t missing;             /* the first of the lines that it stands for; 0: it is no such line */
	bool has_prev, has_signature;
	uint8_t prev[CSM_CHAIN_HASH];
	struct csm_bin signed_body;
	uint8_t key[CSM_CHAIN_KEY], signature[CSM_CHAIN_SIGNATURE];
	uint64_t upto; /* of a witness; 0: it is none */
	uint8_t witnessed[CSM_CHAIN_HASH], ak[CSM_CHAIN_HASH];
	struct csm_str witness; /* the signature, in hex */
};

/* A line without its newline; slices of p. CSM_EINVALID: it has not this form. */
CSM_MUST int csm_chain_parse(const char *p, size_t n, struct csm_chain_line *ret);
void csm_chain_hash(const uint8_t prev[static CSM_CHAIN_HASH], struct csm_bin body, uint8_t out[static CSM_CHAIN_HASH]);
/* Does the line follow the one with this hash? */
bool csm_chain_follows(const struct csm_chain_line *line, const uint8_t prev[static CSM_CHAIN_HASH]);
/* Was the checkpoint signed with this key? */
bool csm_chain_signed_by(const struct csm_chain_line *line, const uint8_t prev[static CSM_CHAIN_HASH],
	const uint8_t key[static CSM_CHAIN_KEY]);
/* What a witness signs: the name of it, the line's number (8 bytes, big-endian), its hash. */
void csm_chain_witness_text(uint64_t upto, const uint8_t head[static CSM_CHAIN_HASH],
	uint8_t out[static CSM_CHAIN_WITNESS_TEXT]);

/* ---- checking a log ---- */

enum csm_chain_problem {
	CSM_CHAIN_NOTE,      /* a fact, no fault of the log */
	CSM_CHAIN_CHANGED,   /* this line, or the one before it */
	CSM_CHAIN_DROPPED,   /* lines seq to `last` are missing before this place */
	CSM_CHAIN_MOVED,     /* the line stands behind later ones */
	CSM_CHAIN_DOUBLED,   /* a line of that number was there already */
	CSM_CHAIN_CUT,       /* lines seq to `last` are missing at the end */
	CSM_CHAIN_UNSIGNED,  /* the checkpoint was not signed by this node */
	CSM_CHAIN_UNCOVERED, /* lines seq to `last`: neither a checkpoint nor the head vouches for them; not among the problems */
};
struct csm_chain_finding {
	enum csm_chain_problem problem;
	const char *file;
	uint64_t line; /* in the file, from 1 */
	uint64_t seq, last;
	const char *text;
};
const char *csm_chain_problem_name(enum csm_chain_problem p);

/* Reads lines in the order of files and lines, and tells what is wrong with each place. */
struct csm_chain_check;
typedef void csm_chain_found_fn(void *arg, const struct csm_chain_finding *f);
CSM_MUST int csm_chain_check_new(csm_chain_found_fn *found, void *arg, struct csm_chain_check **ret);
void csm_chain_check_free(struct csm_chain_check *c);
/* What is known from elsewhere; before the first line. The newest line of the log, which has to be there (all), or may be
 * in a file that is not; */
void csm_chain_check_head(struct csm_chain_check *c, uint64_t seq, const uint8_t hash[static CSM_CHAIN_HASH], bool all);
/* the node's key, without which signatures are not looked at, and uncovered lines not told. */
void csm_chain_check_key(struct csm_chain_check *c, const uint8_t key[static CSM_CHAIN_KEY]);
/* Has this key (ak: SHA-256 of its public half) signed the text? Without it witnesses are only compared with the lines. */
typedef bool csm_chain_witness_fn(void *arg, const uint8_t ak[static CSM_CHAIN_HASH],
	const uint8_t text[static CSM_CHAIN_WITNESS_TEXT], const uint8_t *sig, size_t n);
void csm_chain_check_witness(struct csm_chain_check *c, csm_chain_witness_fn *fn, void *arg);
/* The name lives as long as c. */
void csm_chain_check_file(struct csm_chain_check *c, const char *name);
void csm_chain_check_line(struct csm_chain_check *c, const char *p, size_t n);
/* The file ends in half a line. */
void csm_chain_check_torn(struct csm_chain_check *c);
struct csm_chain_sum {
	uint64_t lines, first, last; /* numbers of lines; 0 where there are none */
	uint64_t checkpoints;        /* that are signed by the key */
	uint64_t signed_to;          /* the last line before the newest of them */
	uint64_t uncovered;          /* the first line that neither a checkpoint nor the head covers; 0: there is none */
	uint64_t witnesses, witnessed_to; /* signed by the key that was asked for, and the last line that one is of */
	bool head_seen;
	size_t problems, notes;
};
/* After the last line. */
void csm_chain_check_end(struct csm_chain_check *c, struct csm_chain_sum *ret);

#endif
