/* Slots: one for each namespace that the caller may use. The first is there before csmd was ever reached.
 *
 * The number of a slot stays its namespace's for the life of the process and of its children, C_Finalize and C_Initialize
 * between or not: a server loads as one user and works as another, who may be told other namespaces, or finds csmd away,
 * and goes on with the number that it knows. Its sessions open all the same (libp11 waits for ever where one does not);
 * what they are used for then fails. */
#include <stdlib.h>
#include <string.h>
#include "libclient/p11/p11.h"

#define PAGE 1000u

struct slot *slots[SLOTS_MAX];
size_t n_slots;
static bool filled; /* csmd has told its namespaces once */
static char known[SLOTS_MAX][P11_NAMESPACE_MAX + 1]; /* the names by number, of this life of the library or an earlier one */
static size_t n_known;

static CK_RV slot_add(void)
{
	slots[n_slots] = calloc(1, sizeof(**slots));
	if (slots[n_slots] == NULL)
		return CKR_HOST_MEMORY;
	slots[n_slots++]->user = NOBODY;
	return CKR_OK;
}

CK_RV slots_init(void)
{
	CK_RV rv;

	filled = false;
	n_slots = 0;
	/* with no number left for a new namespace the numbers begin anew */
	if (n_known == SLOTS_MAX)
		n_known = 0;
	rv = slot_add();
	for (size_t i = 0; i < n_known && rv == CKR_OK; i++) {
		if (i > 0)
			rv = slot_add();
		if (rv == CKR_OK)
			memcpy(slots[i]->ns, known[i], sizeof(known[i]));
	}
	return rv;
}

/* Slot i has its name. */
static void set_name(size_t i, const char *ns)
{
	memcpy(slots[i]->ns, ns, strlen(ns) + 1);
	memcpy(known[i], ns, strlen(ns) + 1);
	if (n_known < i + 1)
		n_known = i + 1;
}

void slots_free(void)
{
	for (size_t i = 0; i < n_slots; i++) {
		for (size_t k = 0; k < slots[i]->n_keys; k++)
			key_unref(slots[i]->keys[k]);
		free(slots[i]->keys);
		free(slots[i]);
	}
	n_slots = 0;
}

struct slot *slot_get(CK_SLOT_ID id)
{
	return id < n_slots ? slots[id] : NULL;
}

static struct slot *slot_named(const char *ns)
{
	for (size_t i = 0; i < n_slots; i++)
		if (strcmp(slots[i]->ns, ns) == 0)
			return slots[i];
	return NULL;
}

static void set_present(struct slot *s, bool present)
{
	s->event |= s->present != present;
	s->present = present;
}

static void take_namespace(const char *ns, bool grow, bool *seen)
{
	struct slot *s = slot_named(ns);

	if (ns[0] == '\0' || strlen(ns) > P11_NAMESPACE_MAX)
		return;
	if (s == NULL) {
		s = slot_named(""); /* the first slot, until it has a name */
		if (s == NULL && grow && n_slots < SLOTS_MAX && slot_add() == CKR_OK)
			s = slots[n_slots - 1];
		if (s == NULL)
			return;
		set_name(s == slots[0] ? 0 : n_slots - 1, ns);
	}
	for (size_t i = 0; i < n_slots; i++)
		if (slots[i] == s)
			seen[i] = true;
	set_present(s, true);
}

static bool has_item(struct csm_view v, const char *field, const char *wanted)
{
	const char *s;

	for (size_t i = 0; (s = csm_view_item(v, field, i)) != NULL; i++)
		if (strcmp(s, wanted) == 0)
			return true;
	return false;
}

static void take_whoami(struct csm_view v, bool grow)
{
	bool seen[SLOTS_MAX] = {false};
	size_t n = csm_view_count(v, "namespaces");

	if (n == 0 && csm_view_has(v, "namespace"))
		take_namespace(csm_view_str(v, "namespace"), grow, seen);
	for (size_t i = 0; i < n; i++)
		take_namespace(csm_view_item(v, "namespaces", i), grow, seen);
	for (size_t i = 0; i < n_slots; i++) {
		if (!seen[i])
			set_present(slots[i], false);
		slots[i]->no_list[LIST_KEYS] = has_item(v, "no_key_list", slots[i]->ns);
		slots[i]->no_list[LIST_CERTS] = has_item(v, "no_cert_list", slots[i]->ns);
	}
}

bool slot_lists(CK_SLOT_ID id, enum listing what)
{
	bool no;

	lock_take(&lib.table);
	no = slots[id]->no_list[what];
	lock_give(&lib.table);
	if (!no)
		return true;
	slots_refresh(false);
	lock_take(&lib.table);
	no = slots[id]->no_list[what];
	lock_give(&lib.table);
	return !no;
}

void slots_refresh(bool grow)
{
	struct csm_reply *reply = NULL;
	unsigned tries = 0;
	int r;

	do
		r = csm_whoami(lib.csm, &reply);
	while (p11_again(r, &tries));
	lock_take(&lib.table);
	if (r == 0) {
		take_whoami(csm_reply_view(reply), grow || !filled);
		filled = true;
	} else if (r != CSM_EBUSY && r != CSM_ENOMEM) {
		for (size_t i = 0; i < n_slots; i++)
			set_present(slots[i], false);
	}
	lock_give(&lib.table);
	csm_reply_free(reply);
}

/* A page of key.list or cert.list. */
static int list_page(const char *method, const char *ns, const char *after, struct csm_reply **ret)
{
	struct csm_request *req = NULL;
	int r = csm_request_new(method, &req);

	if (r == 0)
		r = csm_request_str(req, "namespace", ns);
	if (r == 0)
		r = csm_request_u64(req, "limit", PAGE);
	if (r == 0 && after[0] != '\0')
		r = csm_request_str(req, "after", after);
	return p11_send(r, req, ret);
}

/* The name after which the next page begins. */
static bool next_page(struct csm_view v, const char *list, char after[static P11_NAME_MAX + 1])
{
	size_t n = csm_view_count(v, list);
	const char *name = n == 0 ? NULL : csm_view_str(csm_view_at(v, list, n - 1), "name");

	if (!csm_view_bool(v, "more") || name == NULL || strlen(name) > P11_NAME_MAX)
		return false;
	memcpy(after, name, strlen(name) + 1);
	return true;
}

CK_RV slot_list(CK_SLOT_ID id, enum listing what, CK_RV (*take)(CK_SLOT_ID id, struct csm_view page), bool *whole)
{
	static const char *const methods[] = {[LIST_KEYS] = "key.list", [LIST_CERTS] = "cert.list"};
	static const char *const lists[] = {[LIST_KEYS] = "keys", [LIST_CERTS] = "certs"};
	char after[P11_NAME_MAX + 1] = "";
	struct csm_reply *reply;
	bool more = true;
	CK_RV rv = CKR_OK;

	*whole = false;
	if (!slot_lists(id, what))
		return CKR_OK;
	while (more && rv == CKR_OK) {
		int r = list_page(methods[what], slots[id]->ns, after, &reply);

		/* who may not list has what he asked for by name */
		if (r != 0)
			return p11_rv(r, CKR_OK);
		rv = take(id, csm_reply_view(reply));
		more = next_page(csm_reply_view(reply), lists[what], after);
		csm_reply_free(reply);
	}
	*whole = rv == CKR_OK;
	return rv;
}
