#include <stddef.h>
#include <string.h>
#include "libclient/base/err.h"

struct err_row {
	int code;
	enum csm_error_class class;
	const char *name;
	const char *text;
};

static const struct err_row err_rows[] = {
#define X(sym, num, name, class, http, text) {num, CSM_CLASS_##class, name, text},
#include "proto-spec/errors.def"
#undef X
};

#define N_ERR_ROWS (sizeof(err_rows) / sizeof(err_rows[0]))
/* From this number on a code arises in the client and never crosses the wire. */
#define CLIENT_CODES 100

static const struct err_row *err_find(int code)
{
	for (size_t i = 0; i < N_ERR_ROWS; i++) {
		if (err_rows[i].code == code)
			return &err_rows[i];
	}
	return NULL;
}

const char *csm_err_name(int code)
{
	const struct err_row *row = err_find(code);

	if (code == CSM_OK)
		return "ok";
	return row != NULL ? row->name : "unknown";
}

const char *csm_err_text(int code)
{
	const struct err_row *row = err_find(code);

	if (code == CSM_OK)
		return "success";
	return row != NULL ? row->text : "unknown";
}

int csm_err_of_name(const char *name, size_t n)
{
	for (size_t i = 0; i < N_ERR_ROWS; i++)
		if (strlen(err_rows[i].name) == n && memcmp(err_rows[i].name, name, n) == 0)
			return err_rows[i].code;
	return 0;
}

enum csm_error_class csm_err_class(int code)
{
	const struct err_row *row = err_find(code);

	return row != NULL ? row->class : CSM_CLASS_FAILED;
}

bool csm_err_retryable(int code)
{
	return csm_err_class(code) == CSM_CLASS_RETRY;
}

int csm_err_on_wire(int code)
{
	const struct err_row *row = err_find(code);

	/* What the machine lacks now it may have later. */
	if (code == CSM_ENOMEM)
		return CSM_EBUSY;
	if (code == CSM_ESYSTEM)
		return CSM_EUNAVAILABLE;
	return row != NULL && code < CLIENT_CODES ? code : CSM_EINTERNAL;
}
