/* What a TPM can do at most: bare TPM2_Sign over SAPI on one loaded P-256 key, without csm.
 *
 *   sapi_loop [stock|own|plugin] [SECONDS] [TCTI]
 *
 * stock: the TSS's own TCTI and a password session, the least that a command can cost; own: the same over
 * csm's transport; plugin: csm's TPM back end as the broker calls it, with its HMAC session. TCTI is of the
 * form swtpm:path=SOCKET (default: CSM_TPM_TCTI, else a private swtpm is started). Prints one line:
 * signatures per second, and the client's processor time for one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tss2/tss2_sys.h>
#include <tss2/tss2_tctildr.h>
#include "plugins/tpm2/tcti.h"
#include "tests/lib/swtpm.h"

#define SYS_SIZE 4096u

static double seconds(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void report(const char *mode, unsigned n, double wall, double cpu)
{
	printf("%s: %.0f signatures/s, %.4f ms client CPU each\n", mode, n / wall, cpu * 1e3 / n);
}

static const TSS2L_SYS_AUTH_COMMAND password = {1, {{.sessionHandle = TPM2_RH_PW}}};

static TSS2_RC make_key(TSS2_SYS_CONTEXT *sys, TPM2_HANDLE *ret)
{
	TPM2B_PUBLIC in = {.publicArea = {.type = TPM2_ALG_ECC,
				   .nameAlg = TPM2_ALG_SHA256,
				   .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
					   TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_USERWITHAUTH |
					   TPMA_OBJECT_NODA | TPMA_OBJECT_SIGN_ENCRYPT}},
		     out = {0};
	TPM2B_SENSITIVE_CREATE sens = {.size = 4};
	TSS2L_SYS_AUTH_RESPONSE rsp = {0};
	TPML_PCR_SELECTION pcr = {0};
	TPM2B_DATA outside = {0};
	TPM2B_CREATION_DATA data = {0};
	TPM2B_DIGEST hash = {0};
	TPMT_TK_CREATION ticket = {0};
	TPM2B_NAME name = {0};

	in.publicArea.parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
	in.publicArea.parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
	in.publicArea.parameters.eccDetail.symmetric.algorithm = TPM2_ALG_NULL;
	in.publicArea.parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
	return Tss2_Sys_CreatePrimary(sys, TPM2_RH_OWNER, &password, &sens, &in, &outside, &pcr, ret, &out, &data, &hash,
		&ticket, &name, &rsp);
}

static TSS2_RC sign_once(TSS2_SYS_CONTEXT *sys, TPM2_HANDLE key)
{
	static const TPMT_TK_HASHCHECK ticket = {.tag = TPM2_ST_HASHCHECK, .hierarchy = TPM2_RH_NULL};
	static const TPMT_SIG_SCHEME scheme = {.scheme = TPM2_ALG_ECDSA, .details.ecdsa.hashAlg = TPM2_ALG_SHA256};
	static const TPM2B_DIGEST digest = {.size = 32, .buffer = "thirty-two bytes of some digest"};
	TSS2L_SYS_AUTH_RESPONSE rsp = {0};
	TPMT_SIGNATURE sig = {0};

	return Tss2_Sys_Sign(sys, key, &password, &digest, &scheme, &ticket, &sig, &rsp);
}

static int bare(const char *mode, TSS2_TCTI_CONTEXT *tcti, double limit)
{
	TSS2_ABI_VERSION abi = TSS2_ABI_VERSION_CURRENT;
	size_t size = Tss2_Sys_GetContextSize(SYS_SIZE);
	TSS2_SYS_CONTEXT *sys = calloc(1, size);
	TPM2_HANDLE key = 0;
	double wall, cpu;
	unsigned n = 0;
	TSS2_RC rc = 0;

	if (sys == NULL || Tss2_Sys_Initialize(sys, size, tcti, &abi) != 0 || make_key(sys, &key) != 0) {
		fprintf(stderr, "%s: the key cannot be made\n", mode);
		free(sys);
		return 1;
	}
	wall = seconds(CLOCK_MONOTONIC);
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	while (rc == 0 && seconds(CLOCK_MONOTONIC) - wall < limit)
		if ((rc = sign_once(sys, key)) == 0)
			n++;
	wall = seconds(CLOCK_MONOTONIC) - wall;
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	(void)Tss2_Sys_FlushContext(sys, key);
	Tss2_Sys_Finalize(sys);
	free(sys);
	if (rc != 0 || n == 0) {
		fprintf(stderr, "%s: TPM2_Sign said 0x%x\n", mode, rc);
		return 1;
	}
	report(mode, n, wall, cpu);
	return 0;
}

static int run_stock(const struct swtpm *t, double limit)
{
	TSS2_TCTI_CONTEXT *tcti = NULL;
	int r = 1;

	if (Tss2_TctiLdr_Initialize(t->tcti, &tcti) != 0) {
		fprintf(stderr, "stock: no TPM at %s\n", t->tcti);
		return 1;
	}
	r = bare("stock", tcti, limit);
	Tss2_TctiLdr_Finalize(&tcti);
	return r;
}

static int run_own(struct swtpm_host *h, double limit)
{
	struct t2_tcti tcti;
	int r;

	t2_tcti_init(&tcti, &h->host, true);
	r = bare("own", (TSS2_TCTI_CONTEXT *)&tcti, limit);
	t2_tcti_drop(&tcti);
	return r;
}

static int run_plugin(struct swtpm_host *h, double limit)
{
	static const struct csm_plugin_keyspec spec = {.alg = CSM_ALG_P256, .use = CSM_USE_SIGN};
	static const struct csm_scheme scheme = {CSM_SCHEME_ECDSA, CSM_HASH_SHA256};
	static const uint8_t digest[32] = "thirty-two bytes of some digest";
	const struct csm_plugin *p = &csm_plugin_tpm2;
	uint8_t spki[1024], pub[CSM_PLUGIN_PUB_MAX], priv[CSM_PLUGIN_PRIV_MAX], sig[256];
	struct csm_plugin_out o1 = {spki, sizeof(spki), 0}, o2 = {pub, sizeof(pub), 0}, o3 = {priv, sizeof(priv), 0},
			      o4 = {sig, sizeof(sig), 0};
	struct csm_plugin_ctx *ctx = NULL;
	struct csm_plugin_key *key = NULL;
	double wall, cpu;
	unsigned n = 0;
	int r = 1;

	if (p->open(&h->host, &ctx) != 0)
		return 1;
	if ((r = p->generate(ctx, &spec, &o1, &o2, &o3)) != 0)
		goto out;
	const struct csm_plugin_blob blob = {spki, o1.len, pub, o2.len, priv, o3.len};

	if ((r = p->load(ctx, &spec, &blob, &key)) != 0)
		goto out;
	wall = seconds(CLOCK_MONOTONIC);
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	while (r == 0 && seconds(CLOCK_MONOTONIC) - wall < limit)
		if ((r = p->sign(ctx, key, &scheme, digest, sizeof(digest), &o4)) == 0)
			n++;
	wall = seconds(CLOCK_MONOTONIC) - wall;
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	if (r == 0 && n > 0)
		report("plugin", n, wall, cpu);
out:
	p->unload(ctx, key);
	p->close(ctx);
	if (r != 0)
		fprintf(stderr, "plugin: %s\n", csm_err_text(r));
	return r != 0;
}

/* A TPM that runs already, named by a TCTI configuration. */
static struct swtpm *adopt(const char *tcti)
{
	static const char prefix[] = "swtpm:path=";
	struct swtpm *t;

	if (strncmp(tcti, prefix, strlen(prefix)) != 0 || strlen(tcti) >= sizeof(t->sock) ||
		(t = calloc(1, sizeof(*t))) == NULL) {
		fprintf(stderr, "sapi_loop: not a TCTI of swtpm's Unix socket: %s\n", tcti);
		return NULL;
	}
	snprintf(t->sock, sizeof(t->sock), "%s", tcti + strlen(prefix));
	snprintf(t->tcti, sizeof(t->tcti), "%s", tcti);
	t->pid = -1;
	return t;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "stock";
	double limit = argc > 2 ? strtod(argv[2], NULL) : 3;
	const char *tcti = argc > 3 ? argv[3] : secure_getenv("CSM_TPM_TCTI");
	struct swtpm *t = tcti != NULL && *tcti != '\0' ? adopt(tcti) : swtpm_start();
	struct swtpm_host h;
	int r = 2;

	if (t == NULL)
		return 1;
	swtpm_host_init(&h, t);
	if (strcmp(mode, "stock") == 0)
		r = run_stock(t, limit);
	else if (strcmp(mode, "own") == 0)
		r = run_own(&h, limit);
	else if (strcmp(mode, "plugin") == 0)
		r = run_plugin(&h, limit);
	else
		fprintf(stderr, "usage: sapi_loop [stock|own|plugin] [SECONDS] [TCTI]\n");
	if (t->dir[0] != '\0')
		swtpm_stop(t);
	else
		free(t);
	return r;
}
