#include "libclient/base/lockmem.h"
#include "libclient/certdir/msgjson.h"
#include "libclient/cli/json.h"

void json_protect(void)
{
	json_set_alloc_funcs(csm_lock_alloc, csm_lock_free);
}

int json_base64(const void *p, size_t n, json_t **ret)
{
	int r = csm_json_base64(p, n, ret);

	return r != 0 ? client_err_plain(r) : 0;
}

int json_of(const struct csm_msgdef *def, const void *msg, json_t **ret)
{
	int r = csm_json_of(def, msg, ret);

	return r != 0 ? client_err_plain(r) : 0;
}

int json_print(struct cli *cli, json_t *j)
{
	struct csm_buf b;
	int r;

	csm_buf_init(&b, SIZE_MAX / 4, true);
	r = csm_json_put(j, &b);
	if (r != 0)
		r = client_err_plain(r);
	else
		r = out_put(cli, false, csm_buf_ptr(&b), b.len);
	csm_buf_free(&b);
	json_decref(j);
	return r;
}

int print_bytes(struct cli *cli, const char *field, const void *p, size_t n)
{
	json_t *value, *j;
	int r;

	if (!cli->json)
		return out_put(cli, true, p, n);
	r = json_base64(p, n, &value);
	if (r != 0)
		return r;
	j = json_pack("{s:o}", field, value);
	return j == NULL ? client_err_plain(CSM_ENOMEM) : json_print(cli, j);
}

int print_text_field(struct cli *cli, const char *field, const char *s, size_t n)
{
	json_t *j;

	if (!cli->json)
		return out_put(cli, false, s, n);
	j = json_pack("{s:s%}", field, s, n);
	return j == NULL ? client_err_plain(CSM_ENOMEM) : json_print(cli, j);
}
