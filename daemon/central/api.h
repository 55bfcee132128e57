/* The handlers of csm-server's routes, each a csm_http_handler whose arg is the struct central. routes.c has the table. */
#ifndef CSM_CENTRAL_API_H
#define CSM_CENTRAL_API_H

#include "daemon/central/central.h"

/* ---- probes.c ---- */
csm_http_handler api_healthz, api_readyz, api_metrics;

#endif
