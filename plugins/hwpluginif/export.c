#include "plugins/include/csm_plugin.h"

/* The symbol that a host looks up in the shared object. Weak: a test program links every back end. */
extern const struct csm_plugin *const csm_plugin_export;
__attribute__((weak, visibility("default"))) const struct csm_plugin *const csm_plugin_export = &csm_plugin_hwpluginif;
