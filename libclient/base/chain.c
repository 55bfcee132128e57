#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "libclient/base/chain.h"
#include "libclient/base/hex.h"

#define TAIL ",\"hash\":\""
#define SIGNATURE ",\"signature\":\""
#define KEY ",\"key\":\""
#define PREV ",\"prev\":\""

/* ---- small readers ---- */

static bool skip(const char **p, const char *end, const char *text)
{
	size_t n = strlen(text);

	if ((size_t)(end - *p) < n || memcmp(*p, text, n) != 0)
		return false;
	*p += n;
	return true;
}

static bool number(const char **p, const char *end, uint64_t *ret)
{
	const char *start = *p;
	uint64_t v = 0;

	while (*p < end && **p >= '0' && **p <= '9') {
		uint64_t digit = (uint64_t)(**p - '0');

		if (v > (UINT64_MAX - digit) / 10)
			return false;
		v = v * 10 + digit;
		(*p)++;
	}
	*ret = v;
	/* One way to write each number. */
	return *p > start && (*start != '0' || *p == start + 1);
}

/* The line ends in LABEL HEX "; *end is moved before the label. */
static bool hex_at_end(const char *start, const char **end, const char *label, uint8_t *out, size_t n)
{
	size_t len = strlen(label) + 2 * n + 1;
	const char *at;

	if ((size_t)(*end - start) < len)
		return false;
	at = *end - len;
	if (memcmp(at, label, strlen(label)) != 0 || (*end)[-1] != '"' ||
		csm_unhex((struct csm_str){at + strlen(label), 2 * n}, out, n) != 0)
		return false;
	*end = at;
	return true;
}

/* ---- a line ---- */

static bool read_prev(const char *p, const char *end, struct csm_chain_line *ret)
{
	if (!skip(&p, end, PREV) || (size_t)(end - p) < 2 * CSM_CHAIN_HASH + 1 || p[2 * CSM_CHAIN_HASH] != '"')
		return false;
	return csm_unhex((struct csm_str){p, 2 * CSM_CHAIN_HASH}, ret->prev, CSM_CHAIN_HASH) == 0;
}

/* Behind its "prev". Without this form it is a line like any other, and does not hide what is missing. */
static void read_missing(const char *p, const char *end, struct csm_chain_line *ret)
{
	uint8_t head[CSM_CHAIN_HASH];
	uint64_t first;

	p += strlen(PREV) + 2 * CSM_CHAIN_HASH + 1;
	if (!skip(&p, end, ",\"first\":") || !number(&p, end, &first) || first == 0 || first > ret->seq)
		return;
	if (!skip(&p, end, ",\"head\":\"") || end - p != 2 * CSM_CHAIN_HASH + 1 || end[-1] != '"' ||
		csm_unhex((struct csm_str){p, 2 * CSM_CHAIN_HASH}, head, CSM_CHAIN_HASH) != 0)
		return;
	ret->missing = first;
	memcpy(ret->next, head, CSM_CHAIN_HASH);
}

/* Exactly what a witness says; without this form it is a line like any other, and nothing is signed by it. */
static void read_witness(const char *p, const char *end, struct csm_chain_line *ret)
{
	struct csm_str sig;
	uint64_t upto;

	if (!skip(&p, end, ",\"upto\":") || !number(&p, end, &upto) || upto == 0 || upto >= ret->seq ||
		!skip(&p, end, ",\"head\":\"") || (size_t)(end - p) < 2 * CSM_CHAIN_HASH ||
		csm_unhex((struct csm_str){p, 2 * CSM_CHAIN_HASH}, ret->witnessed, CSM_CHAIN_HASH) != 0)
		return;
	p += 2 * CSM_CHAIN_HASH;
	if (!skip(&p, end, "\",\"ak\":\"") || (size_t)(end - p) < 2 * CSM_CHAIN_HASH ||
		csm_unhex((struct csm_str){p, 2 * CSM_CHAIN_HASH}, ret->ak, CSM_CHAIN_HASH) != 0)
		return;
	p += 2 * CSM_CHAIN_HASH;
	if (!skip(&p, end, "\",\"signature\":\"") || end - p < 1 || end[-1] != '"')
		return;
	sig = (struct csm_str){p, (size_t)(end - p) - 1};
	if (sig.n == 0 || sig.n % 2 != 0 || sig.n > 2 * CSM_CHAIN_WITNESS_MAX)
		return;
	ret->upto = upto;
	ret->witness = sig;
}

int csm_chain_parse(const char *p, size_t n, struct csm_chain_line *ret)
{
	const char *start = p, *end = p + n, *event;
	struct csm_chain_line line = {0};
	uint64_t when;

	if (n >= CSM_CHAIN_LINE_MAX || !skip(&p, end, "{\"seq\":") || !number(&p, end, &line.seq) || line.seq == 0 ||
		!skip(&p, end, ",\"time\":") || !number(&p, end, &when) || !skip(&p, end, ",\"event\":\""))
		return CSM_EINVALID;
	event = p;
	while (p < end && *p >= 'a' && *p <= 'z')
		p++;
	line.event = (struct csm_str){event, (size_t)(p - event)};
	if (!skip(&p, end, "\"") || end[-1] != '}')
		return CSM_EINVALID;
	end--;
	if (!hex_at_end(p, &end, TAIL, line.hash, CSM_CHAIN_HASH))
		return CSM_EINVALID;
	line.body = (struct csm_bin){(const uint8_t *)start, (size_t)(end - start)};
	memcpy(line.next, line.hash, CSM_CHAIN_HASH);
	if (csm_str_eq(line.event, "file") || csm_str_eq(line.event, "break") || csm_str_eq(line.event, "missing"))
		line.has_prev = read_prev(p, end, &line);
	if (line.has_prev && csm_str_eq(line.event, "missing"))
		read_missing(p, end, &line);
	if (csm_str_eq(line.event, "witness"))
		read_witness(p, end, &line);
	if (csm_str_eq(line.event, "checkpoint") &&
		hex_at_end(p, &end, SIGNATURE, line.signature, CSM_CHAIN_SIGNATURE)) {
		line.signed_body = (struct csm_bin){(const uint8_t *)start, (size_t)(end - start)};
		line.has_signature = hex_at_end(p, &end, KEY, line.key, CSM_CHAIN_KEY);
	}
	*ret = line;
	return 0;
}

void csm_chain_witness_text(uint64_t upto, const uint8_t head[static CSM_CHAIN_HASH],
	uint8_t out[static CSM_CHAIN_WITNESS_TEXT])
{
	memcpy(out, CSM_CHAIN_WITNESS, sizeof(CSM_CHAIN_WITNESS) - 1);
	out += sizeof(CSM_CHAIN_WITNESS) - 1;
	for (unsigned i = 0; i < 8; i++)
		*out++ = (uint8_t)(upto >> (56 - 8 * i));
	memcpy(out, head, CSM_CHAIN_HASH);
}

void csm_chain_hash(const uint8_t prev[static CSM_CHAIN_HASH], struct csm_bin body, uint8_t out[static CSM_CHAIN_HASH])
{
	crypto_generichash_state st;

	crypto_generichash_init(&st, NULL, 0, CSM_CHAIN_HASH);
	crypto_generichash_update(&st, prev, CSM_CHAIN_HASH);
	crypto_generichash_update(&st, body.p, body.n);
	crypto_generichash_final(&st, out, CSM_CHAIN_HASH);
}

bool csm_chain_follows(const struct csm_chain_line *line, const uint8_t prev[static CSM_CHAIN_HASH])
{
	uint8_t hash[CSM_CHAIN_HASH];

	csm_chain_hash(prev, line->body, hash);
	return memcmp(hash, line->hash, sizeof(hash)) == 0;
}

bool csm_chain_signed_by(const struct csm_chain_line *line, const uint8_t prev[static CSM_CHAIN_HASH],
	const uint8_t key[static CSM_CHAIN_KEY])
{
	uint8_t text[sizeof(CSM_CHAIN_SIGNED) - 1 + CSM_CHAIN_HASH + CSM_CHAIN_LINE_MAX];
	size_t n = sizeof(CSM_CHAIN_SIGNED) - 1;

	if (!line->has_signature || memcmp(line->key, key, CSM_CHAIN_KEY) != 0)
		return false;
	memcpy(text, CSM_CHAIN_SIGNED, n);
	memcpy(text + n, prev, CSM_CHAIN_HASH);
	n += CSM_CHAIN_HASH;
	memcpy(text + n, line->signed_body.p, line->signed_body.n);
	return crypto_sign_verify_detached(line->signature, text, n + line->signed_body.n, key) == 0;
}
