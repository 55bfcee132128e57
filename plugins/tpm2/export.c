/* What a host finds in tpm2.so. Weak, so that several back ends can be linked into one program. */
#include "plugins/include/csm_plugin.h"

extern const struct csm_plugin *const csm_plugin_export;
__attribute__((weak, visibility("default"))) const struct csm_plugin *const csm_plugin_export = &csm_plugin_tpm2;
