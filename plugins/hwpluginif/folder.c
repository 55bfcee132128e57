/* Reading folders. Who can write them was looked at before (trust.c): between looking and opening nobody else can
 * change anything. */
#include "plugins/hwpluginif/hwpluginif.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "libclient/base/lockmem.h"

int hw_inside(const char *root, const char *name, char out[static 4096])
{
	char path[PATH_MAX];
	size_t n = strlen(root);

	_Static_assert(PATH_MAX == 4096, "what realpath writes");
	if ((size_t)snprintf(path, sizeof(path), "%s/%s", root, name) >= sizeof(path))
		return CSM_EINVALID;
	if (realpath(path, out) == NULL)
		return errno == ENOENT || errno == ENOTDIR ? CSM_ENOT_FOUND : CSM_EINVALID;
	return strncmp(out, root, n) == 0 && out[n] == '/' ? 0 : CSM_EINVALID;
}

static int read_all(int fd, uint8_t *p, size_t n)
{
	size_t done = 0;
	ssize_t got;

	while (done < n) {
		got = read(fd, p + done, n - done);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return CSM_ESYSTEM; /* shorter than it was */
		done += (size_t)got;
	}
	return 0;
}

int hw_file_read(const char *root, const char *name, uint8_t **ret, size_t *len, char why[static HW_WHY_MAX])
{
	char path[PATH_MAX];
	uint8_t *p = NULL;
	struct stat st;
	int fd = -1, r;

	if ((r = hw_inside(root, name, path)) != 0) {
		snprintf(why, HW_WHY_MAX, "%.200s: it is not there, or a link that leads out of the folder", name);
		return r;
	}
	r = CSM_ESYSTEM;
	snprintf(why, HW_WHY_MAX, "%.200s cannot be read", name);
	if ((fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW)) < 0 || fstat(fd, &st) != 0)
		goto out;
	if (!S_ISREG(st.st_mode) || st.st_size > (off_t)HW_FILE_MAX) {
		snprintf(why, HW_WHY_MAX, "%.200s is no file of at most %u bytes", name, HW_FILE_MAX);
		r = CSM_EINVALID;
		goto out;
	}
	r = CSM_ENOMEM;
	if ((p = csm_lock_alloc((size_t)st.st_size + 1)) == NULL || (r = read_all(fd, p, (size_t)st.st_size)) != 0)
		goto out;
	p[st.st_size] = '\0';
	*ret = p;
	*len = (size_t)st.st_size;
	p = NULL;
	r = 0;
out:
	csm_lock_free(p);
	if (fd >= 0)
		close(fd);
	return r;
}

void hw_files_free(struct hw_files *files)
{
	for (size_t i = 0; i < files->n; i++)
		csm_lock_free(files->f[i].p);
	files->n = 0;
}

static bool starts_with(const char *name, const char *prefix)
{
	return tolower((unsigned char)name[0]) == tolower((unsigned char)prefix[0]) &&
		strncmp(name + 1, prefix + 1, strlen(prefix) - 1) == 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void hw_folders_free(char **names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

/* The sorted names in a folder that one of the prefixes fits. */
static int list(const char *path, const char *const *prefixes, bool any_case, size_t max, char ***ret, size_t *n)
{
	char **names = calloc(max, sizeof(*names));
	DIR *d = opendir(path);
	const struct dirent *e;
	size_t count = 0;
	int r = d != NULL ? 0 : CSM_ENOT_FOUND;

	if (names == NULL)
		r = CSM_ENOMEM;
	while (r == 0 && (e = readdir(d)) != NULL) {
		bool fits = false;

		for (size_t i = 0; prefixes[i] != NULL; i++)
			fits = fits || (any_case ? starts_with(e->d_name, prefixes[i]) :
						   strncmp(e->d_name, prefixes[i], strlen(prefixes[i])) == 0);
		if (!fits)
			continue;
		if (count == max)
			r = CSM_ETOO_LARGE;
		else if ((names[count] = strdup(e->d_name)) == NULL)
			r = CSM_ENOMEM;
		else
			count++;
	}
	if (d != NULL)
		closedir(d);
	if (r != 0) {
		hw_folders_free(names, names != NULL ? count : 0);
		return r;
	}
	qsort(names, count, sizeof(*names), by_name);
	*ret = names;
	*n = count;
	return 0;
}

int hw_folders(const char *root, const char *name, const char *prefix, size_t max, char ***ret, size_t *n)
{
	const char *const prefixes[] = {prefix, NULL};
	char path[PATH_MAX], below[PATH_MAX], inside[PATH_MAX];
	size_t count = 0, kept = 0;
	char **names = NULL;
	struct stat st;
	int r;

	if (name[0] == '\0')
		snprintf(path, sizeof(path), "%s", root);
	else if ((r = hw_inside(root, name, path)) != 0)
		return r;
	if ((r = list(path, prefixes, true, max, &names, &count)) != 0)
		return r;
	for (size_t i = 0; i < count; i++) {
		snprintf(below, sizeof(below), "%.512s%s%.512s", name, name[0] != '\0' ? "/" : "", names[i]);
		if (hw_inside(root, below, inside) == 0 && stat(inside, &st) == 0 && S_ISDIR(st.st_mode))
			names[kept++] = names[i];
		else
			free(names[i]);
	}
	*ret = names;
	*n = kept;
	return 0;
}

int hw_files_read(const char *root, const char *name, const char *const *prefixes, struct hw_files *ret,
	char why[static HW_WHY_MAX])
{
	struct hw_files files = {0};
	char path[PATH_MAX], below[PATH_MAX];
	char **names = NULL;
	size_t n = 0;
	int r;

	snprintf(why, HW_WHY_MAX, "%.200s is not there", name);
	if ((r = hw_inside(root, name, path)) != 0)
		return r;
	if ((r = list(path, prefixes, false, SSHSM_HW_PLUGIN_BUFFERS_MAX, &names, &n)) != 0) {
		if (r == CSM_ETOO_LARGE) {
			snprintf(why, HW_WHY_MAX, "%.200s has more than %d files", name, SSHSM_HW_PLUGIN_BUFFERS_MAX);
			r = CSM_EINVALID;
		}
		return r;
	}
	for (size_t i = 0; i < n && r == 0; i++) {
		const char *dot = strchr(names[i], '.'), *id = dot != NULL ? dot + 1 : "";

		if (strlen(id) > SSHSM_HW_PLUGIN_ID_MAX) {
			snprintf(why, HW_WHY_MAX, "%.200s: the name of a file has more than %d characters behind its dot", name,
				SSHSM_HW_PLUGIN_ID_MAX);
			r = CSM_EINVALID;
			break;
		}
		snprintf(below, sizeof(below), "%.512s/%.512s", name, names[i]);
		snprintf(files.f[files.n].id, sizeof(files.f[0].id), "%s", id);
		if ((r = hw_file_read(root, below, &files.f[files.n].p, &files.f[files.n].len, why)) == 0)
			files.n++;
	}
	hw_folders_free(names, n);
	if (r != 0)
		hw_files_free(&files);
	else
		*ret = files;
	return r;
}
