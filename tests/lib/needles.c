/* All patterns stand in one table, found by their first eight bytes; a bitmap in front of it says at most places that
 * there is none. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "tests/lib/needles.h"

#define SECRET_MAX 4096u
#define BITMAP_BITS 25u
#define KEY_LEN 8u
#define NONE UINT32_MAX

struct pattern {
	uint8_t p[NEEDLE_PATTERN_MAX];
	uint8_t n;
	uint8_t form;
	uint16_t window;
	uint32_t name;
	uint32_t next; /* with the same hash */
};
struct needles {
	char **names;
	size_t n_names;
	struct pattern *v;
	size_t n, cap;
	uint32_t *head;
	unsigned head_bits;
	uint8_t *bitmap;
};

static const char *const form_names[NEEDLE__FORMS] = {"raw", "reversed", "swapped32", "swapped64", "ipad", "opad",
	"ipad32", "opad32", "inner-state", "outer-state", "inner-state32", "outer-state32", "hex", "HEX", "hex-reversed", "HEX-reversed", "hex-colons", "HEX-COLONS", "base64", "base64url",
	"base64-reversed", "base64url-reversed"};

const char *needle_form_name(enum needle_form form)
{
	return form_names[form];
}

struct needles *needles_new(void)
{
	return calloc(1, sizeof(struct needles));
}

void needles_free(struct needles *nd)
{
	if (nd == NULL)
		return;
	for (size_t i = 0; i < nd->n_names; i++)
		free(nd->names[i]);
	free(nd->names);
	if (nd->v != NULL)
		explicit_bzero(nd->v, nd->n * sizeof(*nd->v));
	free(nd->v);
	free(nd->head);
	free(nd->bitmap);
	free(nd);
}

static bool add_pattern(struct needles *nd, enum needle_form form, size_t window, const uint8_t *p, size_t n)
{
	struct pattern *v;

	if (nd->n == nd->cap) {
		nd->cap = nd->cap == 0 ? 4096 : nd->cap * 2;
		v = realloc(nd->v, nd->cap * sizeof(*v));
		if (v == NULL)
			return false;
		nd->v = v;
	}
	v = &nd->v[nd->n++];
	*v = (struct pattern){.n = (uint8_t)n, .form = (uint8_t)form, .window = (uint16_t)window, .next = NONE,
		.name = (uint32_t)(nd->n_names - 1)};
	memcpy(v->p, p, n);
	return true;
}

static bool dull(const uint8_t *p, size_t n)
{
	bool seen[256] = {false};
	unsigned distinct = 0;

	for (size_t i = 0; i < n; i++) {
		distinct += !seen[p[i]];
		seen[p[i]] = true;
	}
	return distinct < NEEDLE_DISTINCT;
}

/* ---- forms of one window ---- */

static bool add_hex(struct needles *nd, enum needle_form form, size_t at, const uint8_t *w, size_t n, bool upper,
	bool colons)
{
	const char *digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
	uint8_t text[3 * NEEDLE_WINDOW];
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		if (colons && i > 0)
			text[len++] = ':';
		text[len++] = (uint8_t)digits[w[i] >> 4];
		text[len++] = (uint8_t)digits[w[i] & 15];
	}
	return add_pattern(nd, form, at, text, len);
}

/* The characters that the window alone decides, with `before` bytes of something else in front of it. */
static bool add_base64(struct needles *nd, enum needle_form form, size_t at, const uint8_t *w, size_t n, unsigned before,
	bool url)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t first = (8 * before + 5) / 6, end = 8 * (before + n) / 6, len = 0;
	uint8_t bytes[2 + NEEDLE_WINDOW + 1] = {0}, text[2 * NEEDLE_WINDOW];

	memcpy(bytes + before, w, n);
	for (size_t i = first; i < end; i++) {
		size_t bit = 6 * i;
		unsigned two = (unsigned)bytes[bit / 8] << 8 | bytes[bit / 8 + 1];
		char c = plain[two >> (10 - bit % 8) & 63];

		text[len++] = (uint8_t)(url && c == '+' ? '-' : url && c == '/' ? '_' : c);
	}
	return len < KEY_LEN || add_pattern(nd, form, at, text, len);
}

static bool add_texts(struct needles *nd, size_t at, const uint8_t *w, size_t n, bool reversed)
{
	bool ok = add_hex(nd, reversed ? NEEDLE_HEX_REVERSED : NEEDLE_HEX, at, w, n, false, false) &&
		add_hex(nd, reversed ? NEEDLE_HEX_UPPER_REVERSED : NEEDLE_HEX_UPPER, at, w, n, true, false);

	if (ok && !reversed)
		ok = add_hex(nd, NEEDLE_COLONS, at, w, n, false, true) && add_hex(nd, NEEDLE_COLONS_UPPER, at, w, n, true, true);
	for (unsigned before = 0; ok && before < 3; before++)
		ok = add_base64(nd, reversed ? NEEDLE_BASE64_REVERSED : NEEDLE_BASE64, at, w, n, before, false) &&
			add_base64(nd, reversed ? NEEDLE_BASE64URL_REVERSED : NEEDLE_BASE64URL, at, w, n, before, true);
	return ok;
}

/* ---- forms of a whole secret ---- */

static void swap_words(uint8_t *p, size_t n, size_t word)
{
	for (size_t at = 0; at + word <= n; at += word)
		for (size_t i = 0; i < word / 2; i++) {
			uint8_t c = p[at + i];

			p[at + i] = p[at + word - 1 - i];
			p[at + word - 1 - i] = c;
		}
}

/* The secret as it stands in memory in that form. */
static void turn(enum needle_form form, const uint8_t *secret, size_t n, uint8_t *out)
{
	uint8_t pad = form == NEEDLE_IPAD || form == NEEDLE_IPAD32 ? 0x36 : form == NEEDLE_OPAD || form == NEEDLE_OPAD32 ? 0x5c : 0;

	for (size_t i = 0; i < n; i++)
		out[i] = secret[i] ^ pad;
	if (form == NEEDLE_REVERSED)
		swap_words(out, n, n);
	else if (form == NEEDLE_SWAP32 || form == NEEDLE_IPAD32 || form == NEEDLE_OPAD32)
		swap_words(out, n, 4);
	else if (form == NEEDLE_SWAP64)
		swap_words(out, n, 8);
}

/* A key longer than a block is hashed first: nothing of csm's. */
static bool add_states(struct needles *nd, const uint8_t *secret, size_t n)
{
	crypto_hash_sha256_state state;
	uint8_t block[64], words[32];
	bool ok = true;

	for (enum needle_form form = NEEDLE_INNER; ok && n <= sizeof(block) && form <= NEEDLE_OUTER32; form++) {
		memset(block, form == NEEDLE_INNER || form == NEEDLE_INNER32 ? 0x36 : 0x5c, sizeof(block));
		for (size_t i = 0; i < n; i++)
			block[i] ^= secret[i];
		crypto_hash_sha256_init(&state);
		crypto_hash_sha256_update(&state, block, sizeof(block));
		memcpy(words, state.state, sizeof(words));
		if (form >= NEEDLE_INNER32)
			swap_words(words, sizeof(words), 4);
		for (size_t at = 0; ok && at + NEEDLE_WINDOW <= sizeof(words); at++)
			ok = add_pattern(nd, form, at, words + at, NEEDLE_WINDOW);
	}
	explicit_bzero(&state, sizeof(state));
	explicit_bzero(block, sizeof(block));
	explicit_bzero(words, sizeof(words));
	return ok;
}

static bool add_windows(struct needles *nd, const uint8_t *secret, size_t n)
{
	size_t len = n < NEEDLE_WINDOW ? n : NEEDLE_WINDOW;
	uint8_t turned[SECRET_MAX];
	bool ok = true;

	for (enum needle_form form = NEEDLE_RAW; ok && form <= NEEDLE_OPAD32; form++) {
		turn(form, secret, n, turned);
		for (size_t at = 0; ok && at + len <= n; at++) {
			if (dull(turned + at, len))
				continue;
			ok = add_pattern(nd, form, at, turned + at, len);
			if (ok && form <= NEEDLE_REVERSED)
				ok = add_texts(nd, at, turned + at, len, form == NEEDLE_REVERSED);
		}
	}
	explicit_bzero(turned, sizeof(turned));
	return ok;
}

bool needles_add(struct needles *nd, const char *name, const uint8_t *secret, size_t n)
{
	char **names;
	size_t before = nd->n;

	if (n < NEEDLE_MIN || n > SECRET_MAX || (names = realloc(nd->names, (nd->n_names + 1) * sizeof(*names))) == NULL)
		return false;
	nd->names = names;
	if ((names[nd->n_names] = strdup(name)) == NULL)
		return false;
	nd->n_names++;
	if (!add_windows(nd, secret, n) || nd->n == before)
		return false;
	return add_states(nd, secret, n);
}

/* ---- the table ---- */

static uint64_t key_hash(const uint8_t *p)
{
	uint64_t key;

	memcpy(&key, p, KEY_LEN);
	return key * UINT64_C(0x9e3779b97f4a7c15);
}

bool needles_ready(struct needles *nd)
{
	for (nd->head_bits = 10; (size_t)1 << nd->head_bits < 2 * nd->n; nd->head_bits++)
		;
	nd->head = malloc(sizeof(*nd->head) << nd->head_bits);
	nd->bitmap = calloc(1, (size_t)1 << (BITMAP_BITS - 3));
	if (nd->head == NULL || nd->bitmap == NULL || nd->n >= NONE)
		return false;
	memset(nd->head, 0xff, sizeof(*nd->head) << nd->head_bits);
	for (uint32_t i = 0; i < nd->n; i++) {
		uint64_t h = key_hash(nd->v[i].p), bit = h >> (64 - BITMAP_BITS);
		uint32_t *head = &nd->head[h >> (64 - nd->head_bits)];

		nd->v[i].next = *head;
		*head = i;
		nd->bitmap[bit >> 3] |= (uint8_t)(1u << (bit & 7));
	}
	return true;
}

size_t needles_patterns(const struct needles *nd)
{
	return nd->n;
}

static size_t hits_at(
	const struct needles *nd, uint64_t h, const uint8_t *p, size_t at, size_t n, needle_fn *fn, void *arg)
{
	size_t found = 0;

	for (uint32_t i = nd->head[h >> (64 - nd->head_bits)]; i != NONE; i = nd->v[i].next) {
		const struct pattern *v = &nd->v[i];
		struct needle_hit hit = {nd->names[v->name], v->name, (enum needle_form)v->form, v->window, at};

		if (n - at < v->n || memcmp(p + at, v->p, v->n) != 0)
			continue;
		found++;
		if (fn != NULL)
			fn(arg, &hit);
	}
	return found;
}

size_t needles_scan(const struct needles *nd, const uint8_t *p, size_t n, needle_fn *fn, void *arg)
{
	size_t found = 0;

	for (size_t at = 0; at + KEY_LEN <= n; at++) {
		uint64_t h = key_hash(p + at), bit = h >> (64 - BITMAP_BITS);

		if (nd->bitmap[bit >> 3] & (1u << (bit & 7)))
			found += hits_at(nd, h, p, at, n, fn, arg);
	}
	return found;
}
