/* What csm-ident reads in /proc, where a process chooses its own name and an administrator those of mounts. The first
 * byte says which text it is. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "daemon/ident/look.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(x) \
	do { \
		if (!(x)) \
			abort(); \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char type[32] = "untouched", *text;
	uint64_t image = 77, again = 78;

	if (size == 0)
		return 0;
	text = malloc(size);
	if (text == NULL)
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	if (data[0] % 2 == 0) {
		if (look_parse_image(text, &image))
			MUST(look_parse_image(text, &again) && image == again);
		else
			MUST(image == 77);
	} else if (look_parse_mount(text, data[0] / 2, type, sizeof(type))) {
		MUST(strlen(type) > 0 && strchr(type, ' ') == NULL && strchr(type, '\n') == NULL);
		MUST(look_fs_of(type, data[0]) <= LOOK_FS_CACHED);
	} else {
		MUST(strcmp(type, "untouched") == 0);
	}
	free(text);
	return 0;
}
