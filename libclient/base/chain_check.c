/* Which lines of a log are missing, and which stand where or say what they should not. One pass, in memory that does
 * not grow with the log: the hashes of the last lines, and the ranges of numbers that have not been seen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "libclient/base/chain.h"
#include "libclient/base/hex.h"

#define RECENT 4096u
#define HOLES_MAX 1024u
#define MISSING_BEFORE "lines are missing before this one"
#define OLDER_ELSEWHERE "older lines are in files that are not here"

struct hole { /* numbers that were passed over */
	uint64_t first, last;
	const char *file;
	uint64_t line;
	const char *text;
};

struct csm_chain_check {
	csm_chain_found_fn *found;
	void *arg;
	bool has_head, all, has_key, begun; /* begun: a line has been read, in any file */
	uint64_t head_seq;
	uint8_t head[CSM_CHAIN_HASH], key[CSM_CHAIN_KEY];
	const char *file;
	uint64_t line, next; /* next: the number that is due */
	uint64_t unreadable; /* lines just before that had no number */
	struct {
		uint64_t seq;
		uint8_t hash[CSM_CHAIN_HASH];
	} recent[RECENT];
	struct hole holes[HOLES_MAX];
	size_t n_holes;
	csm_chain_witness_fn *witness; /* NULL: signatures of the device are not looked at */
	void *witness_arg;
	uint64_t covered; /* a checkpoint or the head vouches for what is up to this line; the next one is: */
	const char *uncovered_file;
	uint64_t uncovered_line;
	struct csm_chain_sum sum;
};

const char *csm_chain_problem_name(enum csm_chain_problem p)
{
	static const char *const names[] = {[CSM_CHAIN_NOTE] = "note", [CSM_CHAIN_CHANGED] = "changed",
		[CSM_CHAIN_DROPPED] = "dropped", [CSM_CHAIN_MOVED] = "moved", [CSM_CHAIN_DOUBLED] = "doubled",
		[CSM_CHAIN_CUT] = "cut", [CSM_CHAIN_UNSIGNED] = "signature",
		[CSM_CHAIN_UNCOVERED] = "unsigned"};

	return names[p];
}

int csm_chain_check_new(csm_chain_found_fn *found, void *arg, struct csm_chain_check **ret)
{
	struct csm_chain_check *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return CSM_ENOMEM;
	c->found = found;
	c->arg = arg;
	*ret = c;
	return 0;
}

void csm_chain_check_free(struct csm_chain_check *c)
{
	free(c);
}

void csm_chain_check_head(struct csm_chain_check *c, uint64_t seq, const uint8_t hash[static CSM_CHAIN_HASH], bool all)
{
	c->all = all;
	c->has_head = seq > 0;
	c->head_seq = seq;
	memcpy(c->head, hash, CSM_CHAIN_HASH);
}

void csm_chain_check_key(struct csm_chain_check *c, const uint8_t key[static CSM_CHAIN_KEY])
{
	c->has_key = true;
	memcpy(c->key, key, CSM_CHAIN_KEY);
}

void csm_chain_check_witness(struct csm_chain_check *c, csm_chain_witness_fn *fn, void *arg)
{
	c->witness = fn;
	c->witness_arg = arg;
}

static void tell(struct csm_chain_check *c, const struct csm_chain_finding *f)
{
	if (f->problem == CSM_CHAIN_NOTE)
		c->sum.notes++;
	else if (f->problem != CSM_CHAIN_UNCOVERED)
		c->sum.problems++;
	c->found(c->arg, f);
}

static void tell_here(struct csm_chain_check *c, enum csm_chain_problem problem, uint64_t seq, const char *text)
{
	struct csm_chain_finding f = {problem, c->file, c->line, seq, seq, text};

	tell(c, &f);
}

void csm_chain_check_file(struct csm_chain_check *c, const char *name)
{
	c->file = name;
	c->line = 0;
}

/* ---- numbers ---- */

static void add_hole(struct csm_chain_check *c, uint64_t first, uint64_t last, const char *text)
{
	struct csm_chain_finding f = {CSM_CHAIN_DROPPED, c->file, c->line, first, last, text};

	if (c->n_holes < HOLES_MAX)
		c->holes[c->n_holes++] = (struct hole){first, last, c->file, c->line, text};
	else
		tell(c, &f);
}

/* The number was passed over, and is not any more. */
static bool fill_hole(struct csm_chain_check *c, uint64_t seq)
{
	for (size_t i = 0; i < c->n_holes; i++) {
		struct hole *h = &c->holes[i], rest;

		if (seq < h->first || seq > h->last)
			continue;
		rest = *h;
		rest.first = seq + 1;
		h->last = seq - 1;
		if (h->last < h->first)
			*h = rest;
		else if (rest.first <= rest.last && c->n_holes < HOLES_MAX)
			c->holes[c->n_holes++] = rest;
		if (h->last < h->first)
			*h = c->holes[--c->n_holes];
		return true;
	}
	return false;
}

static const uint8_t *hash_of(const struct csm_chain_check *c, uint64_t seq)
{
	const uint64_t at = seq % RECENT;
	static const uint8_t zeros[CSM_CHAIN_HASH];

	if (seq == 0)
		return zeros;
	return c->recent[at].seq == seq ? c->recent[at].hash : NULL;
}

static void remember(struct csm_chain_check *c, const struct csm_chain_line *l)
{
	const uint64_t at = l->seq % RECENT;

	c->recent[at].seq = l->seq;
	memcpy(c->recent[at].hash, l->next, CSM_CHAIN_HASH);
}

/* The first line of all: what is older may lie elsewhere, but a file has to begin with its first line. */
static void check_begin(struct csm_chain_check *c, const struct csm_chain_line *l)
{
	struct csm_chain_finding older = {CSM_CHAIN_NOTE, c->file, c->line, 1, l->seq - 1, OLDER_ELSEWHERE};

	c->sum.first = l->seq;
	c->next = l->seq;
	if (!l->has_prev || c->line > 1)
		add_hole(c, l->seq > 1 ? l->seq - 1 : 1, l->seq > 1 ? l->seq - 1 : 1, MISSING_BEFORE);
	else if (l->seq > 1)
		tell(c, &older);
}

/* csmd found at a start that lines were not there: they are missing here, too, unless they were put back before it. */
static void check_missing(struct csm_chain_check *c, const struct csm_chain_line *l)
{
	struct csm_chain_finding older = {CSM_CHAIN_NOTE, c->file, c->line, 1, l->missing - 1, OLDER_ELSEWHERE};

	if (!c->begun) {
		c->sum.first = l->seq;
		c->next = l->missing;
		if (l->missing > 1)
			tell(c, &older);
	}
	c->begun = true;
	if (c->next <= l->seq)
		add_hole(c, c->next, l->seq, "csmd found at its start that these lines were gone");
	else
		tell_here(c, CSM_CHAIN_NOTE, l->seq, "lines that were gone at a start of csmd are here");
	if (c->next <= l->seq)
		c->next = l->seq + 1;
}

/* False: the line is one too many. */
static bool check_number(struct csm_chain_check *c, const struct csm_chain_line *l)
{
	if (l->missing != 0) {
		check_missing(c, l);
		return true;
	}
	if (!c->begun)
		check_begin(c, l);
	c->begun = true;
	if (l->seq >= c->next) {
		/* A line that could not be read had a number too. */
		if (l->seq - c->next > c->unreadable)
			add_hole(c, c->next, l->seq - 1, MISSING_BEFORE);
		c->next = l->seq + 1;
		return true;
	}
	if (fill_hole(c, l->seq)) {
		tell_here(c, CSM_CHAIN_MOVED, l->seq, "the line stands behind later ones");
		return true;
	}
	tell_here(c, CSM_CHAIN_DOUBLED, l->seq, "a line of this number was there already");
	return false;
}

/* ---- what a line says ---- */

/* It follows what it states, and has the place of a line whose hash it states. */
static void check_hash_missing(struct csm_chain_check *c, const struct csm_chain_line *l)
{
	const uint8_t *before = hash_of(c, l->missing - 1), *same = hash_of(c, l->seq);

	if (!csm_chain_follows(l, l->prev))
		tell_here(c, CSM_CHAIN_CHANGED, l->seq, "this line was changed");
	else if (before != NULL && memcmp(before, l->prev, CSM_CHAIN_HASH) != 0)
		tell_here(c, CSM_CHAIN_CHANGED, l->seq, "the file does not follow the one before it");
	else if (same != NULL && memcmp(same, l->next, CSM_CHAIN_HASH) != 0)
		tell_here(c, CSM_CHAIN_CHANGED, l->seq, "the lines before this one are not those that csmd had written");
}

static void check_hash(struct csm_chain_check *c, const struct csm_chain_line *l)
{
	const uint8_t *before = hash_of(c, l->seq - 1);
	/* Where the line before is not known, as before a file whose predecessor lies elsewhere, what the line states. */
	const uint8_t *prev = l->has_prev && (before == NULL || csm_str_eq(l->event, "break")) ? l->prev : before;

	if (l->missing != 0)
		check_hash_missing(c, l);
	else if (l->has_prev && before != NULL && memcmp(before, l->prev, CSM_CHAIN_HASH) != 0 && !csm_str_eq(l->event, "break"))
		tell_here(c, CSM_CHAIN_CHANGED, l->seq, "the file does not follow the one before it");
	else if (prev != NULL && !csm_chain_follows(l, prev))
		tell_here(c, CSM_CHAIN_CHANGED, l->seq, "this line or the one before it was changed");
	if (c->has_head && l->seq == c->head_seq) {
		c->sum.head_seen = true;
		if (memcmp(l->next, c->head, CSM_CHAIN_HASH) != 0)
			tell_here(c, CSM_CHAIN_CHANGED, l->seq, "this is not the line that csmd wrote: lines up to it were changed");
		else
			c->covered = l->seq;
	}
	if (!csm_str_eq(l->event, "checkpoint") || !c->has_key || prev == NULL)
		return;
	if (!csm_chain_signed_by(l, prev, c->key)) {
		tell_here(c, CSM_CHAIN_UNSIGNED, l->seq, "the checkpoint is not signed by this node: lines before it were changed");
		return;
	}
	c->sum.checkpoints++;
	c->sum.signed_to = l->seq - 1;
	c->covered = l->seq;
}

/* The device vouches for a line that was there before. */
static void check_witness(struct csm_chain_check *c, const struct csm_chain_line *l)
{
	uint8_t text[CSM_CHAIN_WITNESS_TEXT], sig[CSM_CHAIN_WITNESS_MAX];
	const uint8_t *known = l->upto != 0 ? hash_of(c, l->upto) : NULL;
	size_t n = l->witness.n / 2;

	if (l->upto == 0) {
		tell_here(c, CSM_CHAIN_UNSIGNED, l->seq, "this is no witness of the TPM's");
		return;
	}
	if (known != NULL && memcmp(known, l->witnessed, CSM_CHAIN_HASH) != 0) {
		tell_here(c, CSM_CHAIN_CHANGED, l->seq, "the TPM signed another line: lines before this one were changed");
		return;
	}
	if (c->witness == NULL)
		return;
	csm_chain_witness_text(l->upto, l->witnessed, text);
	if (csm_unhex(l->witness, sig, n) != 0 || !c->witness(c->witness_arg, l->ak, text, sig, n)) {
		tell_here(c, CSM_CHAIN_UNSIGNED, l->seq, "this is not signed by the attestation key that was given");
		return;
	}
	/* Of a line that is not here nothing can be said. */
	if (known == NULL)
		return;
	c->sum.witnesses++;
	c->sum.witnessed_to = l->upto;
}

/* Whoever can write the log can make lines and their hashes; only what is before a signature or the head cannot be made. */
static void check_covered(struct csm_chain_check *c, const struct csm_chain_line *l)
{
	if (l->seq <= c->covered) {
		c->sum.uncovered = 0;
	} else if (c->sum.uncovered == 0) {
		c->sum.uncovered = l->seq;
		c->uncovered_file = c->file;
		c->uncovered_line = c->line;
	}
}

/* What csmd itself has told of the log. */
static void check_event(struct csm_chain_check *c, const struct csm_chain_line *l)
{
	if (csm_str_eq(l->event, "break"))
		tell_here(c, CSM_CHAIN_CHANGED, l->seq, "csmd found here that the log was not as it had left it");
	else if (csm_str_eq(l->event, "gap"))
		tell_here(c, CSM_CHAIN_NOTE, l->seq, "the log could not be written for a time: events are missing before this line");
	else if (csm_str_eq(l->event, "repaired"))
		tell_here(c, CSM_CHAIN_NOTE, l->seq, "half a line, of a crash or a full disk, was taken off before this line");
	else if (csm_str_eq(l->event, "removed"))
		tell_here(c, CSM_CHAIN_NOTE, l->seq, "csmd has removed its oldest file, as configured");
}

void csm_chain_check_line(struct csm_chain_check *c, const char *p, size_t n)
{
	struct csm_chain_line l;

	c->line++;
	c->sum.lines++;
	if (csm_chain_parse(p, n, &l) != 0) {
		tell_here(c, CSM_CHAIN_CHANGED, c->next, "this is not a line of an audit log");
		c->unreadable += c->begun;
		return;
	}
	if (c->begun && c->line == 1 && !l.has_prev && l.seq == c->next)
		tell_here(c, CSM_CHAIN_MOVED, l.seq, "the file does not begin with its first line");
	if (check_number(c, &l)) {
		check_hash(c, &l);
		check_covered(c, &l);
		check_event(c, &l);
		if (csm_str_eq(l.event, "witness"))
			check_witness(c, &l);
		remember(c, &l);
		if (l.seq > c->sum.last)
			c->sum.last = l.seq;
	}
	c->unreadable = 0;
}

void csm_chain_check_torn(struct csm_chain_check *c)
{
	c->line++;
	tell_here(c, CSM_CHAIN_CUT, c->next, "the file ends in half a line");
}

static void end_covered(struct csm_chain_check *c)
{
	struct csm_chain_finding f = {CSM_CHAIN_UNCOVERED, c->uncovered_file, c->uncovered_line, c->sum.uncovered, c->sum.last,
		c->sum.checkpoints > 0 ? "no signed checkpoint stands behind these lines: they may be forged"
				       : "no checkpoint is signed by this node: all of it may be forged"};

	/* Lines behind the head of the whole log were written meanwhile. */
	if (c->has_head && c->all) {
		c->sum.uncovered = 0;
		return;
	}
	if (c->sum.lines == 0) {
		f.file = c->file;
		c->sum.uncovered = 1;
	}
	if (c->sum.uncovered != 0 && c->has_key)
		tell(c, &f);
}

void csm_chain_check_end(struct csm_chain_check *c, struct csm_chain_sum *ret)
{
	for (size_t i = 0; i < c->n_holes; i++) {
		const struct hole *h = &c->holes[i];
		struct csm_chain_finding f = {CSM_CHAIN_DROPPED, h->file, h->line, h->first, h->last, h->text};

		tell(c, &f);
	}
	c->n_holes = 0;
	if (c->has_head && c->sum.last < c->head_seq) {
		struct csm_chain_finding f = {c->all ? CSM_CHAIN_CUT : CSM_CHAIN_NOTE, c->file, c->line, c->sum.last + 1,
			c->head_seq, c->all ? "lines are missing at the end" : "later lines are in files that were not given"};

		tell(c, &f);
	}
	end_covered(c);
	*ret = c->sum;
}
