/* Every limit of csm, in one place. Sizes are bytes, times milliseconds unless said. */
#ifndef CSM_LIMITS_H
#define CSM_LIMITS_H

/* the wire */
#define CSM_PROTO_VERSION 1
#define CSM_MESSAGE_MAX (1024u * 1024u) /* one whole message, header and all */
#define CSM_DEPTH_MAX 8u
#define CSM_IN_FLIGHT_MAX 1024u /* requests of one connection without an answer */
#define CSM_OUT_MAX (2u * CSM_MESSAGE_MAX)
#define CSM_ERROR_TEXT_MAX 512u /* of an error, and of a reason that is kept */
#define CSM_REQUEST_ID_MAX 64u
#define CSM_REQUEST_ID_TTL_S (24u * 3600u)
#define CSM_LIST_MAX 1000u /* entries of one answer to a list method */
#define CSM_LIST_DEFAULT 100u

/* names */
#define CSM_NAMESPACE_MAX 63u
#define CSM_NAME_MAX 128u
#define CSM_KEYREF_MAX (CSM_NAMESPACE_MAX + 1 + CSM_NAME_MAX)
#define CSM_SECRETREF_MAX (CSM_NAMESPACE_MAX + 1 + CSM_NAME_MAX + 1 + CSM_NAME_MAX)
#define CSM_KEY_TAG_MAX 64u /* of a key, by its maker */
#define CSM_TOKEN_STR_MAX 64u /* algorithm, scheme, back end, type names */

/* objects */
#define CSM_PAIRS_MAX 256u
#define CSM_SECRET_MAX (768u * 1024u) /* names and values of one version together */
#define CSM_SECRET_VERSIONS_KEPT 10u
#define CSM_SIGN_MESSAGE_MAX (768u * 1024u) /* longer messages go by init, update, final */
#define CSM_DIGEST_MAX 64u
#define CSM_SIGNATURE_MAX 1024u
#define CSM_SPKI_MAX 1024u
#define CSM_CSR_MAX 16384u
#define CSM_TBS_MAX CSM_SIGN_MESSAGE_MAX /* what an issuer signs, in one request; longer lists go by begin, update, finish */
#define CSM_TBS_HEAD_MAX 8192u           /* of a long list: all before its entries, and all after them */
#define CSM_ISSUER_LIFE_MAX 3155760000u  /* of what an issuer signs, seconds: a hundred years */
#define CSM_ISSUER_PATH_MAX 16u
#define CSM_ISSUER_NAMES_MAX 32u         /* name constraints of an issuer, permitted and excluded each */
#define CSM_ISSUER_NAME_MAX 128u
#define CSM_ISSUER_RATE_MAX 1000000000u
#define CSM_ISSUES_MAX 4u                /* lists that are being signed in parts on one connection */
#define CSM_ATTEST_NONCE_MAX 32u
#define CSM_ATTESTATION_MAX 8192u
#define CSM_EK_CERT_MAX 4096u            /* as the TPM keeps it, DER */
#define CSM_TPM_NAME_MAX 66u
#define CSM_WRAPPED_MAX 4096u     /* a key that comes in or goes out wrapped */
#define CSM_STORAGE_PEM_MAX 2048u /* a storage key in PEM */
#define CSM_CERT_CHAIN_MAX (64u * 1024u) /* DER, all certificates of a chain together */
#define CSM_CERTS_MAX 10u                /* certificates of a chain */
#define CSM_CERT_NAME_MAX 2048u          /* a subject or issuer, as text */
#define CSM_CERT_SANS_MAX 256u
#define CSM_WATCH_KEYS_MAX 256u          /* of one cert.watch, and changes that one answer names */
#define CSM_WATCH_MS 300000u             /* the longest wait of one */
#define CSM_ENROL_PROFILES_MAX 16u       /* of csmd.yaml */
#define CSM_NAMESPACES_TOLD_MAX 64u
#define CSM_SANS_MAX 64u
#define CSM_SAN_MAX 512u
#define CSM_SUBJECT_MAX 1024u
#define CSM_RANDOM_MAX (64u * 1024u)
#define CSM_SEAL_MAX (64u * 1024u)
#define CSM_CONNECTION_KEYS_MAX 8u /* keys for the life of a connection */
#define CSM_SIGN_STREAMS_MAX 16u /* open init/update/final operations of one connection */

/* between the broker and csm-enrol */
#define CSM_ENROL_CHANNELS 4u              /* threads of csm-enrol, each with one job at a time */
#define CSM_ENROL_URL_MAX 512u
#define CSM_ENROL_TOKEN_MAX 512u
#define CSM_ENROL_BODY_MAX (512u * 1024u)  /* a usage report */
#define CSM_DELIVER_TARGETS_MAX 64u          /* of deliver.yaml */
#define CSM_DELIVER_WAIT_MS 60000u

/* back ends in processes of their own */
#define CSM_PLUGHOSTS_MAX 8u
#define CSM_PLUG_CHANNELS 4u             /* descriptors between the broker and one csm-plughost */
#define CSM_PLUG_KEYS_MAX 4096u          /* loaded in one at once */
#define CSM_PLUG_OUT_MAX (64u * 1024u)   /* what it gives out at once */
#define CSM_PLUG_CALL_MS 10000u          /* of a call, unless told otherwise */
#define CSM_PLUG_LONG 12u                /* making a key may take so many times as long */

/* connections */
#define CSM_CONNECTIONS_MAX 16384u
#define CSM_CONNECTIONS_PER_UID 256u
#define CSM_CONNECTIONS_ADMIN 32u   /* kept free for the administrator */
#define CSM_FIRST_MESSAGE_MS 10000u /* from the connection to its first whole message */
#define CSM_MESSAGE_MS 10000u       /* from a message's first byte to its last */
#define CSM_SHUTDOWN_MS 5000u       /* to answer what was accepted */
#define CSM_FD_RESERVE 64u

/* processor */
#define CSM_NICE (-2) /* csmd unless told otherwise */

/* memory of keys */
#define CSM_KEY_IDLE_MS 60000u /* a parsed software key unused for so long is wiped */
#define CSM_KEYS_PARSED_MAX 1024u

/* queues */
#define CSM_QUEUE_MAX 1024u         /* operations waiting for one back end */
#define CSM_QUEUE_PER_IDENTITY 256u /* of them from one uid */
#define CSM_COMMIT_QUEUE_MAX 4096u

/* csm-server's HTTP */
#define CSM_HTTP_HEAD_MAX 16384u           /* request line and headers of a request */
#define CSM_HTTP_HEADERS_MAX 64u
#define CSM_HTTP_TARGET_MAX 4096u
#define CSM_HTTP_BODY_MAX (1024u * 1024u)  /* no route takes more */
#define CSM_HTTP_BODIES_MAX (64u * 1024u * 1024u) /* announced at one time by all connections */
#define CSM_HTTP_ANSWER_MAX (256u * 1024u * 1024u)
#define CSM_HTTP_HANDSHAKE_MS 10000u
#define CSM_HTTP_HEAD_MS 10000u            /* from a request's first byte, or the connection, to the end of its headers */
#define CSM_HTTP_BODY_MS 30000u            /* from there to the end of its body */
#define CSM_HTTP_IDLE_MS 60000u            /* between two requests of a connection */
#define CSM_HTTP_WRITE_MS 30000u           /* for an answer, and again for each 2 MiB of it */
#define CSM_HTTP_LINGER_MS 2000u           /* for a client that sends what is not read any more */
#define CSM_HTTP_CONNECTIONS_MAX 4096u     /* of TLS and plain together */
#define CSM_HTTP_CONNECTIONS_PER_ADDRESS 512u
#define CSM_HTTP_CONNECTIONS_LOCAL 32u
#define CSM_HTTP_NEW_PER_ADDRESS 200u      /* connections a second */
#define CSM_HTTP_NEW_BURST 1000u
#define CSM_HTTP_REQUESTS_PER_ADDRESS 1000u /* a second, of those who show nothing that tells who they are */
#define CSM_HTTP_REQUESTS_PER_CALLER 5000u /* a second, of one certificate or token */
#define CSM_USAGE_PER_NODE 600u            /* reports of use a minute, of one node; and at once after a rest: */
#define CSM_USAGE_PER_NODE_BURST 20000u
#define CSM_USAGE_PER_KEY 2u               /* a minute, about one key */
#define CSM_USAGE_PER_KEY_BURST 2000u
#define CSM_HTTP_REFUSED_PER_ADDRESS 5u    /* a second: credentials that are worth nothing */
#define CSM_HTTP_QUEUE_MAX 1024u           /* requests that wait for a worker */
#define CSM_HTTP_QUEUE_PER_CALLER 256u
#define CSM_HTTP_QUERY_MAX 24u             /* parameters of a query */

/* files */
#define CSM_CONFIG_MAX (64u * 1024u)
#define CSM_POLICY_MAX (512u * 1024u)
#define CSM_POLICY_IDENTITIES_MAX 1024u
#define CSM_POLICY_RULES_MAX 4096u
#define CSM_POLICY_WARNINGS_MAX 64u
#define CSM_POLICY_NAMES_TOLD_MAX 256u /* of users, and of groups, in the answer to a check */
#define CSM_POLICY_NAME_TOLD_MAX 256u
#define CSM_YAML_DEPTH_MAX 6u
#define CSM_YAML_NODES_MAX 131072u
#define CSM_YAML_CHILDREN_MAX 8192u /* of one mapping or list */

#endif
