#include "libclient/tpmfmt/policy.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define MAGIC "csm-tpm-approval"
#define CC_POLICY_PCR 0x0000017fu
#define CC_POLICY_AUTHORIZE 0x0000016au
#define ALG_SHA256 0x000bu
#define SELECT_BYTES 3u

/* ---- sets of PCRs ---- */

bool csm_pcrs_parse(const char *text, size_t n, uint32_t *ret)
{
	uint32_t set = 0;
	size_t i = 0;

	while (i < n) {
		unsigned v = 0;
		size_t digits = 0;

		for (; i < n && text[i] >= '0' && text[i] <= '9' && digits < 3; i++, digits++)
			v = v * 10 + (unsigned)(text[i] - '0');
		if (digits == 0 || v >= CSM_PCRS || (set & UINT32_C(1) << v) != 0)
			return false;
		set |= UINT32_C(1) << v;
		if (i == n)
			break;
		if (text[i++] != ',' || i == n)
			return false;
	}
	if (set == 0)
		return false;
	*ret = set;
	return true;
}

void csm_pcrs_text(uint32_t pcrs, char out[static CSM_PCR_TEXT_MAX])
{
	size_t n = 0;

	out[0] = '\0';
	for (unsigned i = 0; i < CSM_PCRS; i++)
		if ((pcrs & UINT32_C(1) << i) != 0)
			n += (size_t)snprintf(out + n, CSM_PCR_TEXT_MAX - n, "%s%u", n > 0 ? "," : "", i);
}

void csm_pcrs_selection(uint32_t pcrs, uint8_t out[static CSM_PCR_SELECTION_LEN])
{
	const uint8_t sel[CSM_PCR_SELECTION_LEN] = {0, 0, 0, 1, ALG_SHA256 >> 8, ALG_SHA256 & 0xff, SELECT_BYTES,
		(uint8_t)pcrs, (uint8_t)(pcrs >> 8), (uint8_t)(pcrs >> 16)};

	memcpy(out, sel, sizeof(sel));
}

/* ---- digests ---- */

static void put_command(crypto_hash_sha256_state *h, uint32_t cc)
{
	const uint8_t p[4] = {(uint8_t)(cc >> 24), (uint8_t)(cc >> 16), (uint8_t)(cc >> 8), (uint8_t)cc};

	crypto_hash_sha256_update(h, p, sizeof(p));
}

void csm_pcr_policy(uint32_t pcrs, const uint8_t values[static CSM_PCRS][CSM_PCR_LEN], uint8_t out[static CSM_PCR_LEN])
{
	static const uint8_t zeros[CSM_PCR_LEN];
	uint8_t sel[CSM_PCR_SELECTION_LEN], digest[CSM_PCR_LEN];
	crypto_hash_sha256_state h;

	crypto_hash_sha256_init(&h);
	for (unsigned i = 0; i < CSM_PCRS; i++)
		if ((pcrs & UINT32_C(1) << i) != 0)
			crypto_hash_sha256_update(&h, values[i], CSM_PCR_LEN);
	crypto_hash_sha256_final(&h, digest);
	csm_pcrs_selection(pcrs, sel);
	crypto_hash_sha256_init(&h);
	crypto_hash_sha256_update(&h, zeros, sizeof(zeros));
	put_command(&h, CC_POLICY_PCR);
	crypto_hash_sha256_update(&h, sel, sizeof(sel));
	crypto_hash_sha256_update(&h, digest, sizeof(digest));
	crypto_hash_sha256_final(&h, out);
}

void csm_authorize_policy(const uint8_t *name, size_t name_len, const uint8_t *ref, size_t ref_len,
	uint8_t out[static CSM_PCR_LEN])
{
	static const uint8_t zeros[CSM_PCR_LEN];
	uint8_t inner[CSM_PCR_LEN];
	crypto_hash_sha256_state h;

	crypto_hash_sha256_init(&h);
	crypto_hash_sha256_update(&h, zeros, sizeof(zeros));
	put_command(&h, CC_POLICY_AUTHORIZE);
	crypto_hash_sha256_update(&h, name, name_len);
	crypto_hash_sha256_final(&h, inner);
	crypto_hash_sha256_init(&h);
	crypto_hash_sha256_update(&h, inner, sizeof(inner));
	if (ref_len > 0)
		crypto_hash_sha256_update(&h, ref, ref_len);
	crypto_hash_sha256_final(&h, out);
}

/* ---- the file ---- */

enum field { F_MAGIC, F_PCRS, F_POLICY, F_REF, F_SIGNATURE, F__COUNT };
static const char *const fields[F__COUNT] = {MAGIC, "pcrs", "policy", "ref", "signature"};
#define BIT(f) (1u << (f))
#define NEEDED (BIT(F_MAGIC) | BIT(F_PCRS) | BIT(F_POLICY) | BIT(F_SIGNATURE))

static bool take_hex(const char *v, size_t n, uint8_t *out, size_t cap, size_t *len)
{
	const char *end;

	return sodium_hex2bin(out, cap, v, n, NULL, len, &end) == 0 && end == v + n;
}

static bool take_field(struct csm_tpm_approval *a, enum field f, const char *v, size_t n)
{
	size_t len;

	switch (f) {
	case F_MAGIC:
		return n == 1 && *v == '1';
	case F_PCRS:
		return csm_pcrs_parse(v, n, &a->pcrs);
	case F_POLICY:
		return take_hex(v, n, a->policy, sizeof(a->policy), &len) && len == sizeof(a->policy);
	case F_REF:
		return take_hex(v, n, a->ref, sizeof(a->ref), &a->ref_len);
	case F_SIGNATURE:
		return take_hex(v, n, a->signature, sizeof(a->signature), &a->signature_len) && a->signature_len > 0;
	case F__COUNT:
		break;
	}
	return false;
}

static void trim(const char **p, size_t *n)
{
	while (*n > 0 && (**p == ' ' || **p == '\t')) {
		++*p;
		--*n;
	}
	while (*n > 0 && ((*p)[*n - 1] == ' ' || (*p)[*n - 1] == '\t' || (*p)[*n - 1] == '\r'))
		--*n;
}

struct parser {
	struct csm_tpm_approval *out;
	size_t count;
	unsigned seen; /* fields of the one at hand */
};

static bool take_line(struct parser *ps, const char *p, size_t n)
{
	const char *hash = memchr(p, '#', n), *colon;
	enum field f = F_MAGIC;

	if (hash != NULL)
		n = (size_t)(hash - p);
	trim(&p, &n);
	if (n == 0)
		return true;
	colon = memchr(p, ':', n);
	if (colon == NULL)
		return false;
	while (f < F__COUNT && (strlen(fields[f]) != (size_t)(colon - p) || memcmp(fields[f], p, (size_t)(colon - p)) != 0))
		f++;
	n -= (size_t)(colon + 1 - p);
	p = colon + 1;
	trim(&p, &n);
	if (f == F_MAGIC) {
		if ((ps->count > 0 && (ps->seen & NEEDED) != NEEDED) || ps->count == CSM_APPROVALS_MAX)
			return false;
		ps->seen = 0;
		ps->out[ps->count++] = (struct csm_tpm_approval){0};
	}
	if (f == F__COUNT || ps->count == 0 || (ps->seen & BIT(f)) != 0)
		return false;
	ps->seen |= BIT(f);
	return take_field(&ps->out[ps->count - 1], f, p, n);
}

/* "7 : 0xABCD" */
static bool take_value(const char *p, size_t n, uint32_t *pcrs, uint8_t values[static CSM_PCRS][CSM_PCR_LEN])
{
	const char *colon = memchr(p, ':', n), *v;
	uint32_t one;
	size_t name, len;

	if (colon == NULL)
		return false;
	v = colon + 1;
	name = (size_t)(colon - p);
	n -= name + 1;
	trim(&p, &name);
	trim(&v, &n);
	if (!csm_pcrs_parse(p, name, &one) || (one & (one - 1)) != 0 || (*pcrs & one) != 0 || n < 2 || v[0] != '0' ||
		(v[1] != 'x' && v[1] != 'X'))
		return false;
	*pcrs |= one;
	return take_hex(v + 2, n - 2, values[__builtin_ctz(one)], CSM_PCR_LEN, &len) && len == CSM_PCR_LEN;
}

int csm_pcr_values_parse(const char *text, size_t n, uint32_t *pcrs, uint8_t values[static CSM_PCRS][CSM_PCR_LEN],
	unsigned *line)
{
	uint32_t got = 0;
	bool ours = false;
	size_t at = 0;

	for (*line = 0; at < n;) {
		const char *p = text + at, *end = memchr(p, '\n', n - at);
		size_t len = end != NULL ? (size_t)(end - p) : n - at;

		at += len + 1;
		++*line;
		trim(&p, &len);
		if (len > 0 && p[len - 1] == ':')
			ours = len == 7 && memcmp(p, "sha256:", 7) == 0;
		else if (ours && len > 0 && !take_value(p, len, &got, values))
			return CSM_EINVALID;
	}
	if (got == 0)
		return CSM_EINVALID;
	*pcrs = got;
	return 0;
}

int csm_approvals_parse(const char *text, size_t n, struct csm_tpm_approval ret[static CSM_APPROVALS_MAX],
	size_t *count, unsigned *line)
{
	struct parser ps = {.out = ret};
	size_t at = 0;

	*line = 0;
	if (n > CSM_APPROVALS_TEXT_MAX)
		return CSM_EINVALID;
	while (at < n) {
		const char *end = memchr(text + at, '\n', n - at);
		size_t len = end != NULL ? (size_t)(end - (text + at)) : n - at;

		++*line;
		if (!take_line(&ps, text + at, len))
			return CSM_EINVALID;
		at += len + 1;
	}
	if (ps.count == 0 || (ps.seen & NEEDED) != NEEDED)
		return CSM_EINVALID;
	*count = ps.count;
	return 0;
}

int csm_approval_text(const struct csm_tpm_approval *a, char *out, size_t cap)
{
	char policy[2 * CSM_PCR_LEN + 1], ref[2 * CSM_APPROVAL_REF_MAX + 1], sig[2 * CSM_APPROVAL_SIG_MAX + 1];
	char pcrs[CSM_PCR_TEXT_MAX];
	int n;

	csm_pcrs_text(a->pcrs, pcrs);
	sodium_bin2hex(policy, sizeof(policy), a->policy, sizeof(a->policy));
	sodium_bin2hex(ref, sizeof(ref), a->ref, a->ref_len);
	sodium_bin2hex(sig, sizeof(sig), a->signature, a->signature_len);
	n = snprintf(out, cap, MAGIC ": 1\npcrs: %s\npolicy: %s\nref: %s\nsignature: %s\n", pcrs, policy, ref, sig);
	return n >= 0 && (size_t)n < cap ? 0 : CSM_ETOO_LARGE;
}
