/* The one table of options and the one of commands: dispatch, help, manual and completion come from it. */
#include "libclient/cli/cli.h"

const struct opt cli_opts[O__COUNT] = {
	[O_HELP] = {"help", 'h', NULL, NULL, "show help and do nothing else"},
	[O_JSON] = {"json", 0, NULL, NULL, "print one JSON object or array instead of text"},
	[O_SOCKET] = {"socket", 0, "PATH", "@file", "the daemon's socket, in place of the environment's"},
	[O_TIMEOUT] = {"timeout", 0, "SECONDS", NULL, "how long one request may take: 10 unless given, 0 for ever"},
	[O_TRUST_OVERFLOW] = {"trust-overflow", 0, NULL, NULL,
		"trust a socket whose owner this user namespace cannot name"},
	[O_OUTPUT] = {"output", 'o', "FILE", "@file",
		"write to FILE in place of standard output; what may be secret gets mode 0600"},
	[O_ALG] = {"alg", 0, "ALG", "p256 p384 p521 rsa2048 rsa3072 rsa4096 ed25519",
		"one of p256 (unless given), p384, p521, rsa2048, rsa3072, rsa4096 and ed25519"},
	[O_BACKEND] = {"backend", 0, "NAME", "soft tpm2",
		"the back end, tpm2 or soft; the strongest one present unless given"},
	[O_USE] = {"use", 0, "USES", "sign decrypt derive issuer",
		"what for: sign, decrypt, derive, with commas between, or issuer; what fits the algorithm unless given"},
	[O_EXPORTABLE] = {"exportable", 0, NULL, NULL,
		"let the administrator export the key (csm key export); a TPM's only"},
	[O_EXISTING] = {"existing", 0, "REF", NULL,
		"take a key that is in the back end's device into use: a PKCS#11 URI, or the name of a key folder; for root"},
	[O_REQUEST_ID] = {"request-id", 0, "ID", NULL,
		"name the request: the same one again within a day is done only once"},
	[O_NAMESPACE] = {"namespace", 0, "NS", NULL, "the namespace; the caller's home unless given"},
	[O_DER] = {"der", 0, NULL, NULL, "write DER, not PEM"},
	[O_SCHEME] = {"scheme", 0, "SCHEME",
		"ecdsa-sha256 ecdsa-sha384 ecdsa-sha512 rsa-pkcs1-sha256 rsa-pkcs1-sha384 rsa-pkcs1-sha512 "
		"rsa-pss-sha256 rsa-pss-sha384 rsa-pss-sha512 rsa-oaep-sha256 rsa-oaep-sha384 rsa-oaep-sha512 ed25519",
		"the scheme, like ecdsa-sha256 or rsa-pss-sha384; what fits the key unless given"},
	[O_DIGEST] = {"digest", 0, NULL, NULL, "the input is the digest (bytes, not hex), not the message"},
	[O_SUBJECT] = {"subject", 0, "SUBJECT", NULL, "the subject's name, like /O=x/CN=y; empty unless given"},
	[O_SAN] = {"san", 0, "TYPE:NAME", "dns: ip: uri: email:",
		"an alternative name, like dns:a.example, ip:192.0.2.1, uri:spiffe://x/y or email:a@b; may be repeated. ca cert list: "
		"only those with this one, once, with * and ? in it or without"},
	[O_LABEL] = {"label", 0, "TEXT", NULL, "the label given at encryption"},
	[O_VERSION] = {"version", 0, "N", NULL, "this version; the newest unless given"},
	[O_EXPECT] = {"expect", 0, "N", NULL, "do it only if the newest version is N (0: there is none)"},
	[O_SECRET] = {"secret", 0, "DOMAIN/NAME", NULL, "the secret; may be repeated"},
	[O_ENV] = {"env", 0, NULL, NULL, "put the pairs into the environment, not into files"},
	[O_CONTEXT] = {"context", 0, "TEXT", NULL, "what the sealed data is bound to besides the node"},
	[O_AS] = {"as", 0, "SELECTORS", NULL,
		"ask for such a peer: uid, gid, unit, user_unit, container, pod, label, exe, like uid=1000,unit=nginx.service; "
		"may be repeated; the caller unless given"},
	[O_LINES] = {"lines", 'n', "N", NULL, "so many lines; 10 unless given"},
	[O_FOLLOW] = {"follow", 'f', NULL, NULL, "go on with what is added, until interrupted"},
	[O_PEM] = {"pem", 0, NULL, NULL, "print the certificate and its chain as PEM"},
	[O_KEY] = {"key", 0, "KEY", "@file",
		"audit verify: the node's key that checkpoints are signed with, in hexadecimal digits; the running daemon's unless "
		"given. attest verify: a file with the key's public half (PEM), which the statement must be about. ca cert verify: a file "
		"with the key that csm-server signs its inventory with, as csm ca cert signer prints it"},
	[O_NONCE] = {"nonce", 0, "HEX", NULL,
		"1 to 32 bytes that the statement contains (key attest) or must contain (attest verify)"},
	[O_CA] = {"ca", 0, "FILE", "@file",
		"certificates (PEM) of those who are trusted to certify endorsement keys: of the TPM's maker; may be repeated"},
	[O_AK] = {"ak", 0, "FILE", "@file", "the attestation key's public half (PEM), which must have "
		"signed the statement, or (audit verify) the witness lines"},
	[O_SECRET_FILE] = {"secret-file", 0, "FILE", "@file",
		"the challenge's secret: attest challenge writes it (mode 0600), attest verify reads it"},
	[O_PROOF] = {"proof", 0, "FILE", "@file", "what csm attest activate answered to the challenge"},
	[O_TO] = {"to", 0, "FILE", "@file", "the node's storage key: what csm status --json printed there, or its storage_key"},
	[O_NAME] = {"name", 0, "NAME", NULL,
		"wrap-key: the Name that the storage key must have, in hexadecimal digits: storage_name of csm status, learned in another "
		"way than the key. token create: a name that a certificate may have, like dns:a.example; may be repeated. ca cert list: only "
		"those with this common name, or this name of a host, which may have * and ? in it"},
	[O_ATTESTATION] = {"attestation", 0, "FILE", "@file",
		"a statement of csm key attest about any key of the node's TPM: the storage key has to be that TPM's"},
	[O_ACCEPT_EXPOSED] = {"accept-exposed", 0, NULL, NULL,
		"take a key although its files tell it to everyone who had them"},
	[O_UNPROVEN] = {"unproven", 0, NULL, NULL,
		"take a statement though nothing proves that its attestation key is in a TPM: a program can make all of it up"},
	[O_SIGNER] = {"signer", 0, "FILE", "@file", "the private key that signs, in PEM: P-256, RSA-2048 or RSA-3072"},
	[O_PCRS] = {"pcrs", 0, "FILE", "@file", "PCRs with their values, as tpm2_pcrread sha256:0,2,7 prints them; - is standard input"},
	[O_SHARES] = {"shares", 0, "N", NULL, "how many shares to make, 2 to 32"},
	[O_THRESHOLD] = {"threshold", 0, "K", NULL, "how many of them are needed, 2 to N"},
	[O_ACCEPT_COUNTER] = {"accept-counter", 0, NULL, NULL,
		"the TPM is another one, or was cleared, and its counter with it: take the store for the newest one all the same"},
	[O_MAX_LIFE] = {"max-life", 0, "TIME", NULL,
		"of an issuer's key: the longest life of what it signs, like 90d or 10y (s, m or min, h, d, w, y of 365 days)"},
	[O_PATH_LEN] = {"path-len", 0, "N", NULL,
		"of an issuer's key: how many CAs may stand below it; 0 (it issues to no CA) unless given"},
	[O_PERMIT] = {"permit", 0, "TYPE:NAME", "dns: ip: uri: email:",
		"of an issuer's key: only such names of this type, like dns:.example.org (every host below) or ip:10.0.0.0/8; may be "
		"repeated"},
	[O_EXCLUDE] = {"exclude", 0, "TYPE:NAME", "dns: ip: uri: email:", "of an issuer's key: never such names; may be repeated"},
	[O_RATE] = {"rate", 0, "N", NULL, "of an issuer's key: at most N signatures an hour; any number unless given"},
	[O_PROFILE] = {"profile", 0, "NAME", NULL,
		"cert enrol: the profile of csmd.yaml; default unless given. token create: the profile of csm-server that it is for. ca cert "
		"list: only those of this profile"},
	[O_CSR] = {"csr", 0, "FILE", "@file",
		"cert enrol: a request made elsewhere, which is forwarded. ca init: write the authority's request there, for an outside root"},
	[O_NO_WAIT] = {"no-wait", 0, NULL, NULL, "do not wait for the CA: csm cert show and csm cert watch tell"},
	[O_REASON] = {"reason", 0, "REASON",
		"unspecified keyCompromise affiliationChanged superseded cessationOfOperation certificateHold privilegeWithdrawn",
		"why, as RFC 5280 names it, like keyCompromise or superseded; unspecified unless given"},
	[O_CHAIN] = {"chain", 0, NULL, NULL, "ca show: all certificates of the authority. ca init: take the chain in CHAIN.pem"},
	[O_TTL] = {"ttl", 0, "TIME", NULL, "how long it shall hold, like 90s, 12h, 30d or 10y; what the profile or the server says unless given"},
	[O_USES] = {"uses", 0, "N", NULL, "how many certificates it is good for; 1 unless given"},
	[O_ANY_NAME] = {"any-name", 0, NULL, NULL, "for every name that the profile allows"},
	[O_CSV] = {"csv", 0, NULL, NULL, "comma-separated values, with a first line of names"},
	[O_ISSUER] = {"issuer", 0, "NAME", NULL, "the issuer of server.yaml; default unless given (ca cert list: all of them)"},
	[O_ADMIN] = {"admin", 0, "PREFIX", "@file",
		"the first administrator's certificate and key go to PREFIX.pem and PREFIX.key; admin unless given, \"\": none is made"},
	[O_STATE] = {"state", 0, "STATE", "valid revoked expired", "only those in this state: valid, revoked or expired"},
	[O_NODE] = {"node", 0, "NAME", NULL, "only those that were issued to this node"},
	[O_REQUESTER] = {"requester", 0, "WHO", NULL, "only those that were asked for so: token ID, cert SERIAL, or uid N"},
	[O_SERIAL] = {"serial", 0, "SERIAL", NULL, "only the one with this serial number"},
	[O_EXPIRES_BEFORE] = {"expires-before", 0, "WHEN", NULL, "only those that end before, like +30d, 2026-01-02 or 2026-01-02T03:04:05Z"},
	[O_EXPIRES_AFTER] = {"expires-after", 0, "WHEN", NULL, "only those that end later"},
	[O_ISSUED_AFTER] = {"issued-after", 0, "WHEN", NULL, "only those that were issued later, like -7d"},
	[O_LIMIT] = {"limit", 0, "N", NULL, "so many at most; all unless given"},
	[O_AFTER] = {"after", 0, "CURSOR", NULL, "what follows on what was listed before: --limit tells CURSOR where there are more"},
	[O_PASSPHRASE_FILE] = {"passphrase-file", 0, "FILE", "@file",
		"the private key's passphrase: the first line of FILE, or of standard input where that is \"-\"; the terminal is asked unless given"},
	[O_REF] = {"ref", 0, "TEXT", NULL, "what csmd.yaml has as policy_ref; nothing unless given"},
};

#define OPTS_ISSUER (OPT(O_MAX_LIFE) | OPT(O_PATH_LEN) | OPT(O_PERMIT) | OPT(O_EXCLUDE) | OPT(O_RATE))
#define INPUT "FILE is read, or standard input where it is absent or \"-\". "
#define BINARY "Binary output goes to -o FILE, or to standard output when that is not a terminal."

const struct command cli_commands[] = {
	{"status", NULL, "", 0, 0, SOCK_ADMIN_OF_ROOT, 0, CSM_M_STATUS, NULL, "show the daemon's health",
		"Back ends, TPM, store, memory and warnings. For uid 0 the answer comes over the administrator's socket "
		"where that can be reached, and holds the totals.",
		cmd_status},
	{"whoami", NULL, "", 0, 0, SOCK_PUBLIC, 0, CSM_M_WHOAMI, NULL, "show who the daemon says you are", NULL,
		cmd_whoami},
	{"metrics", NULL, "", 0, 0, SOCK_ADMIN_OF_ROOT, 0, CSM_M_STATS, "an array of metrics",
		"show the daemon's counters in Prometheus' text format", NULL, cmd_metrics},

	{"key", "create", "NAME", 1, 1, SOCK_PUBLIC,
		OPT(O_ALG) | OPT(O_BACKEND) | OPT(O_USE) | OPT(O_EXPORTABLE) | OPT(O_EXISTING) | OPT(O_REQUEST_ID) | OPTS_ISSUER,
		CSM_M_KEY_CREATE, NULL,
		"make a key",
		"The private part never leaves the daemon's back end. Algorithms that the strongest back end does not have, like "
		"ed25519 in a TPM, want --backend soft; csm status lists what each one has. With --existing no key is made: "
		"the one that the back end knows by REF gets this name; its algorithm and uses are the device's. That is "
		"for the administrator alone, and goes over his socket; name the namespace in NAME. With --use issuer the key is "
		"that of a certificate authority: it signs nothing but whole certificates, CRLs and OCSP responses, which the "
		"daemon reads and holds against the rules given here, for good.",
		cmd_key_create},
	{"key", "list", "", 0, 0, SOCK_PUBLIC, OPT(O_NAMESPACE), -1,
		"an array of objects with namespace, name, alg, backend, protection and created", "list the keys of a namespace",
		NULL, cmd_key_list},
	{"key", "show", "NAME", 1, 1, SOCK_PUBLIC, 0, CSM_M_KEY_SHOW, NULL, "show a key's properties", NULL, cmd_key_show},
	{"key", "public", "NAME", 1, 1, SOCK_PUBLIC, OPT(O_DER) | OPT(O_OUTPUT) | OUTPUT_PUBLIC, CSM_M_KEY_PUBLIC, NULL,
		"print a key's public half (SubjectPublicKeyInfo)", NULL, cmd_key_public},
	{"key", "reference", "NAME", 1, 1, SOCK_PUBLIC, OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1,
		"an object with reference (PEM)", "print what stands in a file in place of the private key",
		"A CSM KEY REFERENCE in PEM: the key's namespace and name, and the SHA-256 of its public half. Programs that read a "
		"private key from a file use the key by it, through OpenSSL's provider csm.",
		cmd_key_reference},
	{"key", "import", "NAME FILE...", 2, 5, SOCK_PUBLIC, OPT(O_BACKEND) | OPT(O_ACCEPT_EXPOSED) | OPT(O_REQUEST_ID) | OPT(O_USE) | OPTS_ISSUER,
		CSM_M_KEY_IMPORT, NULL, "make a key of one that was made elsewhere and wrapped for this node",
		"FILE is what csm wrap-key wrote, or a TSS2 PRIVATE KEY that tpm2-openssl or tpm2-tools made in this machine's TPM "
		"under 0x81000001, without authorisation and policy. A private key in clear is refused and not sent. The up to four "
		"files of ONAP's tpm-util (public and private half, seed, inner key, in any order) are recognised; since they tell "
		"the private key to everyone who had them, they are taken with --accept-exposed only, and to the back end "
		"that --backend names. csm key show tells how a key came (origin: imported, exposed).",
		cmd_key_import},
	{"key", "export", "NAME", 1, 1, SOCK_ADMIN, OPT(O_OUTPUT), CSM_M_KEY_EXPORT, "an object with tss2 (PEM)",
		"write a TPM's key for other programs on this machine",
		"A TSS2 PRIVATE KEY in PEM of a key that was made with --exportable, which tpm2-openssl and tpm2-tools load: parent "
		"0x81000001, no authorisation. It is of no use on another machine; on this one, whoever has the file and may use the "
		"TPM signs with the key, and csm neither judges, counts nor logs that.",
		cmd_key_export},
	{"key", "delete", "NAME", 1, 1, SOCK_PUBLIC, OPT(O_REQUEST_ID), CSM_M_KEY_DELETE, NULL, "delete a key for good",
		NULL, cmd_key_delete},

	{"key", "attest", "NAME", 1, 1, SOCK_PUBLIC, OPT(O_NONCE) | OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1,
		"an object with attestation (PEM)", "have the TPM state that it holds the key",
		"A CSM ATTESTATION in PEM, signed by the node's attestation key: the key's public half and attributes, the nonce, and "
		"the endorsement key with its certificate, where the TPM has one. csm attest verify checks it, elsewhere. Keys of the "
		"back end soft have no statement.",
		cmd_key_attest},

	{"attest", "verify", "FILE", 1, 1, SOCK_NONE,
		OPT(O_NONCE) | OPT(O_CA) | OPT(O_KEY) | OPT(O_AK) | OPT(O_SECRET_FILE) | OPT(O_PROOF) | OPT(O_UNPROVEN),
		-1,
		"an object with valid, link (proven, pinned or unproven), ak_name, nonce, attributes, public, ak (PEM) and checks (an "
		"array of objects with check, result (ok, failed or open) and text)",
		"check a TPM's statement about a key, without daemon and TPM",
		"Prints each check; the exit status is 1 if one has failed. Checked are the attestation key's signature, that the "
		"statement was made inside of a TPM for this nonce and is about this key, that the key was made in its TPM and cannot "
		"leave it, and, with --ca, that the TPM's maker certified the endorsement key. None of this proves that the "
		"attestation key is in the TPM of that endorsement key: a program can make all of it up. That is proved once for each "
		"attestation key by csm attest challenge, csm attest activate on the node, and then --ca, --secret-file and --proof "
		"here; afterwards --ak with that attestation key (field ak of --json) is enough. Without either the statement is "
		"refused, unless --unproven is given.",
		cmd_attest_verify},
	{"attest", "challenge", "FILE", 1, 1, SOCK_NONE, OPT(O_OUTPUT) | OPT(O_SECRET_FILE), -1,
		"an object with challenge (PEM), without -o",
		"make a challenge that only the TPM of a statement's keys can answer",
		"FILE is a statement of csm key attest, already verified with --ca. The challenge goes to the node, which answers by "
		"csm attest activate; the secret stays here.",
		cmd_attest_challenge},
	{"attest", "activate", "CHALLENGE", 1, 1, SOCK_ADMIN, OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1,
		"an object with proof (PEM), without -o",
		"answer a challenge with this node's TPM",
		"Writes a proof that the attestation key and the endorsement key of the challenge are in this node's TPM.",
		cmd_attest_activate},
	{"wrap-key", NULL, "PEM", 1, 1, SOCK_NONE,
		OPT(O_TO) | OPT(O_NAME) | OPT(O_BACKEND) | OPT(O_USE) | OPT(O_OUTPUT) | OUTPUT_PUBLIC | OPT(O_ATTESTATION) |
			OPT(O_NONCE) | OPT(O_CA) | OPT(O_AK) | OPT(O_SECRET_FILE) | OPT(O_PROOF) | OPT(O_PASSPHRASE_FILE),
		-1,
		"an object with wrapped (PEM)", "wrap a private key for one node",
		"For the machine where keys are made: it needs no TPM and no daemon. PEM is a private key (RSA of 2048, 3072 or 4096 "
		"bits, P-256, P-384, P-521), which may be encrypted; \"-\" is standard "
		"input. --to is what csm status --json prints on the node; --backend chooses one of its back ends there (the preferred "
		"one unless given). The result can be opened by that node alone: csm key import. Whoever can give you another storage "
		"key gets the private key: compare its Name with --name, or have the node's TPM vouch for it: --attestation is what csm "
		"key attest wrote there, about any key of that TPM, and --ak, or --ca with --secret-file and --proof, prove it as with csm "
		"attest verify; nothing is written unless they do.",
		cmd_wrap_key},

	{"sign", NULL, "NAME [FILE]", 1, 2, SOCK_PUBLIC,
		OPT(O_SCHEME) | OPT(O_DIGEST) | OPT(O_OUTPUT) | OUTPUT_PUBLIC, CSM_M_KEY_SIGN, NULL,
		"sign a message or a digest",
		INPUT "A message may have any length; for Ed25519 it is at most 786432 bytes. ECDSA signatures are DER. "
		BINARY, cmd_sign},
	{"decrypt", NULL, "NAME [FILE]", 1, 2, SOCK_PUBLIC, OPT(O_SCHEME) | OPT(O_LABEL) | OPT(O_OUTPUT),
		CSM_M_KEY_DECRYPT, NULL, "decrypt with an RSA key (OAEP)", INPUT BINARY, cmd_decrypt},
	{"derive", NULL, "NAME PEER.pem", 2, 2, SOCK_PUBLIC, OPT(O_OUTPUT), CSM_M_KEY_DERIVE, NULL,
		"agree on a shared secret with the peer's public key (ECDH)",
		"PEER.pem is a PUBLIC KEY in PEM, or DER; \"-\" is standard input. " BINARY, cmd_derive},
	{"csr", NULL, "NAME", 1, 1, SOCK_PUBLIC,
		OPT(O_SUBJECT) | OPT(O_SAN) | OPT(O_SCHEME) | OPT(O_DER) | OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1,
		"an object with csr (PEM)",
		"make a certificate request (PKCS#10)", NULL, cmd_csr},

	{"cert", "install", "KEY CHAIN.pem", 2, 2, SOCK_PUBLIC, OPT(O_REQUEST_ID), CSM_M_CERT_INSTALL, NULL,
		"put a certificate that was issued elsewhere beside its key",
		"CHAIN.pem has the key's certificate first, then its issuer's and so on, at most ten; the root may be left out; \"-\" "
		"is standard input. The daemon checks that the certificate is the key's, that each one was issued by the next and "
		"that none has expired. It takes the place of the one that was there.",
		cmd_cert_install},
	{"cert", "enrol", "KEY", 1, 1, SOCK_PUBLIC,
		OPT(O_PROFILE) | OPT(O_SUBJECT) | OPT(O_SAN) | OPT(O_TTL) | OPT(O_CSR) | OPT(O_NO_WAIT) | OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1,
		"the same as csm cert show", "get a certificate for a key from a CA, and have it renewed",
		"The node makes the request, and csm-enrol brings it to the CA that the profile in csmd.yaml names; what comes back is "
		"checked, kept beside the key, and renewed before it ends. Waits for up to 90 seconds, unless --no-wait is given. With "
		"--csr a request that was made elsewhere is forwarded, as policy allows by KEY, a name for it; the chain is printed as "
		"PEM, and nothing is kept.",
		cmd_cert_enrol},
	{"cert", "renew", "KEY", 1, 1, SOCK_PUBLIC, OPT(O_NO_WAIT), -1, "the same as csm cert show",
		"renew a key's certificate now, not when it is due", NULL, cmd_cert_renew},
	{"cert", "revoke", "KEY", 1, 1, SOCK_PUBLIC, OPT(O_REASON), -1, "the same as csm cert show",
		"have the CA revoke a key's certificate, and renew it no more; the key stays", NULL, cmd_cert_revoke},
	{"cert", "watch", "[KEY]...", 0, ARGS_ANY, SOCK_PUBLIC, 0, -1, "one object with key a line, as it happens",
		"tell when certificates change, until interrupted",
		"Prints the name of a key when its certificate has become another one; without KEY, of the caller's home namespace. "
		"A KEY that does not exist yet is waited for.",
		cmd_cert_watch},
	{"cert", "list", "", 0, 0, SOCK_PUBLIC, OPT(O_NAMESPACE), -1,
		"an array of objects with namespace, name, serial, subject, not_after, state, fingerprint, "
		"and what else csm cert show has of it, without san, issuer and chain",
		"list the certificates of a namespace", NULL, cmd_cert_list},
	{"cert", "show", "KEY", 1, 1, SOCK_PUBLIC, OPT(O_PEM) | OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1,
		"an object with namespace, name, serial, subject, san, issuer, not_before, not_after, renew_at, state, last_error, "
		"fingerprint, installed, chain and, of one that was enrolled, anchors (arrays of PEM)",
		"show a key's certificate", NULL, cmd_cert_show},
	{"cert", "export", "KEY DIR", 2, 2, SOCK_PUBLIC, 0, -1, "the same as csm cert show",
		"write a key's certificate into a folder, for programs that read files",
		"Makes DIR with cert.pem, chain.pem (the issuers, without the root), fullchain.pem (both), ca.pem (the root, where the "
		"chain has it, else whom the enrolment profile trusts; empty where there is neither), key.pem (a reference to the key, for programs that load the OpenSSL provider: never a "
		"private key) and meta.json (what csm cert show --json prints). DIR as a whole changes at once, and is on the disk "
		"when the command ends. A DIR that holds other files is left alone. Wants cert.get and key.public.",
		cmd_cert_export},
	{"cert", "delete", "KEY", 1, 1, SOCK_PUBLIC, OPT(O_REQUEST_ID), CSM_M_CERT_DELETE, NULL,
		"delete a key's certificate; the key stays", NULL, cmd_cert_delete},

	{"domain", "create", "NAME", 1, 1, SOCK_PUBLIC, OPT(O_REQUEST_ID), CSM_M_DOMAIN_CREATE, NULL,
		"make a domain for secrets", NULL, cmd_domain_create},
	{"domain", "list", "", 0, 0, SOCK_PUBLIC, OPT(O_NAMESPACE), -1,
		"an array of objects with namespace, name, created and secrets", "list the domains of a namespace", NULL,
		cmd_domain_list},
	{"domain", "show", "NAME", 1, 1, SOCK_PUBLIC, 0, CSM_M_DOMAIN_SHOW, NULL, "show a domain", NULL, cmd_domain_show},
	{"domain", "delete", "NAME", 1, 1, SOCK_PUBLIC, OPT(O_REQUEST_ID), CSM_M_DOMAIN_DELETE, NULL,
		"delete a domain and all secrets in it", "It does not ask back.", cmd_domain_delete},

	{"secret", "set", "DOMAIN/NAME K=V...|-", 2, ARGS_ANY, SOCK_PUBLIC, OPT(O_EXPECT) | OPT(O_REQUEST_ID),
		CSM_M_SECRET_SET, NULL, "set all pairs of a secret, as its next version",
		"The domain has to be there; the ten newest versions are kept. V is the value itself (which others can see in "
		"the list of processes), @FILE for a file's bytes, or - for the bytes of standard input; K alone asks at the "
		"terminal, twice. A single \"-\" in place of the pairs (as in --json -) reads a JSON object from standard input: "
		"strings are stored as text, other values as JSON, and {\"base64\": \"...\"} as bytes.",
		cmd_secret_set},
	{"secret", "get", "DOMAIN/NAME [KEY]", 1, 2, SOCK_PUBLIC, OPT(O_VERSION) | OPT(O_OUTPUT), -1,
		"an object with version, created, pairs (name to value: text as it is, other bytes in base64) and types (name "
		"to text, json or bytes)",
		"read a secret",
		"Prints a line K=V for each pair, and K:base64=... where the value is not one line of text. With KEY, prints "
		"that value as it is, with a newline behind it only on a terminal.",
		cmd_secret_get},
	{"secret", "list", "DOMAIN", 1, 1, SOCK_PUBLIC, 0, -1, "an array of objects with name, version and created",
		"list the secrets of a domain", NULL, cmd_secret_list},
	{"secret", "delete", "DOMAIN/NAME", 1, 1, SOCK_PUBLIC, OPT(O_REQUEST_ID), CSM_M_SECRET_DELETE, NULL,
		"delete a secret, all versions of it", NULL, cmd_secret_delete},
	{"exec", NULL, "-- COMMAND [ARG]...", 1, ARGS_ANY, SOCK_PUBLIC, OPT(O_SECRET) | OPT(O_ENV), -1, "nothing",
		"run a command with a secret's pairs",
		"Each pair is a file in a private folder in memory (tmpfs), which the variable CSM_SECRETS names and which "
		"is removed when the command ends. With --env each pair is an environment variable instead, which every "
		"process of the same user can read in /proc; names that steer the loader, the shell or csm (LD_*, PATH, "
		"BASH_ENV, CSM_* and such) are refused. The exit status is the command's: 128 and the signal's number "
		"where a signal ended it, 126 or 127 where it could not be started.",
		cmd_exec},

	{"random", NULL, "N", 1, 1, SOCK_PUBLIC, OPT(O_OUTPUT), CSM_M_RANDOM, NULL, "write N random bytes", BINARY,
		cmd_random},
	{"seal", NULL, "[FILE]", 0, 1, SOCK_PUBLIC, OPT(O_CONTEXT) | OPT(O_NAMESPACE) | OPT(O_OUTPUT), CSM_M_SEAL, NULL,
		"encrypt small data for this node", INPUT "At most 65536 bytes. " BINARY, cmd_seal},
	{"unseal", NULL, "[FILE]", 0, 1, SOCK_PUBLIC, OPT(O_CONTEXT) | OPT(O_NAMESPACE) | OPT(O_OUTPUT), CSM_M_UNSEAL,
		NULL, "give back what was sealed", INPUT BINARY, cmd_unseal},

	{"policy", "check", "FILE", 1, 1, SOCK_ADMIN, 0, CSM_M_POLICY_CHECK, NULL, "check a policy file",
		"Prints each error and warning with its place; the exit status is 1 where the file is not valid. The running "
		"daemon does it; without one, csmd --check looks at the policy that its configuration names.",
		cmd_policy_check},
	{"policy", "explain", "METHOD OBJECT", 2, 2, SOCK_ADMIN, OPT(O_AS), CSM_M_POLICY_EXPLAIN, NULL,
		"show which rule decides", "METHOD is a permission like key.sign, OBJECT like web:tls or shared:db/main.",
		cmd_policy_explain},
	{"policy", "reload", "", 0, 0, SOCK_ADMIN, 0, CSM_M_POLICY_RELOAD, NULL, "read the policy file again", NULL,
		cmd_policy_reload},
	{"store", "accept", "", 0, 0, SOCK_ADMIN, 0, CSM_M_STORE_ACCEPT, NULL,
		"accept a store that was changed behind the daemon", NULL, cmd_store_accept},
	{"reseal", NULL, "", 0, 0, SOCK_ADMIN, 0, CSM_M_RESEAL, NULL,
		"seal the root key anew under what the configuration says of PCRs or a signed policy",
		"The root key in the TPM comes out only while the TPM is in the state that it was sealed under: csmd.yaml(5), tpm. After "
		"a change of these keys and a restart of csmd this brings the stored root key in line with them. It is proven that the "
		"new form opens before the old one is given up.",
		cmd_reseal},
	{"recovery", "create", "[DIR]", 0, 1, SOCK_ADMIN, OPT(O_SHARES) | OPT(O_THRESHOLD), CSM_M_RECOVERY_CREATE, NULL,
		"make shares by which the root key can be brought back when the TPM is gone",
		"Any K of the N shares bring the root key back; fewer tell nothing. Each is shown or written once, and csmd keeps none of "
		"them: into files DIR/share-1-of-N.txt and so on (mode 0600), or to standard output, on a terminal one after the other. "
		"Give each to somebody else, on paper. A new set makes the one before useless on this store, not on copies of it that "
		"are older.",
		cmd_recovery_create},
	{"recovery", "status", "", 0, 0, SOCK_ADMIN, 0, CSM_M_RECOVERY_STATUS, NULL, "show which recovery shares there are", NULL,
		cmd_recovery_status},
	{"recovery", "restore", "[FILE]...", 0, ARGS_ANY, SOCK_ADMIN, OPT(O_ACCEPT_COUNTER), CSM_M_RECOVERY_RESTORE, NULL,
		"bring the root key back on a node whose TPM was cleared or replaced, or refuses it",
		"Each FILE (- is standard input) holds a share; without files they are asked for at the terminal, and not shown as they "
		"are typed. The root key is sealed to the TPM that is there now. Secrets and software keys all work again; keys in the "
		"old TPM are lost, csm key list says which. With a new TPM, or a cleared one, --accept-counter is needed: its counter is "
		"new, so that an older copy of the store could not be told from the newest one.",
		cmd_recovery_restore},
	{"approval", "sign", "", 0, 0, SOCK_NONE, OPT(O_SIGNER) | OPT(O_PCRS) | OPT(O_REF) | OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1,
		"an object with approval (the text)", "approve values of PCRs for nodes whose root key is under a signed policy",
		"Needs neither a daemon nor a TPM: it is for the machine that has the signer's key. What it prints goes into the file "
		"that csmd.yaml names as policy_file, beside earlier approvals as long as these shall hold: before a firmware update, "
		"one of the values that the PCRs will have after it.",
		cmd_approval_sign},
	{"audit", "verify", "[FILE]...", 0, ARGS_ANY, SOCK_ADMIN, OPT(O_KEY) | OPT(O_AK), -1,
		"an object with whole, files, lines, first, last, head, anchored, checkpoints, key, signed_to, unsigned_from (null "
		"where all is vouched for), witnessed_to (with --ak), problems and notes (each an array of objects with problem, file, line, seq, last and text)",
		"check that no line of the audit log was changed, dropped, moved, doubled or cut off",
		"Prints each problem with its place; the exit status is 1 where there is one, and 0 only if all lines that were read "
		"can be vouched for, or there was no key to do that with. Without FILE, all files of the running "
		"daemon are read, and the end is compared with what the daemon wrote last. With FILE, these are checked, also "
		"where no daemon runs; older and later lines may then be in other files. "
		"Lines behind the last checkpoint that the key has signed (and that the running daemon does not know as its own) can "
		"be forged: the problem is `unsigned`, and the log not whole. Files that were filled, and all files once csmd has "
		"stopped, end in a checkpoint: these are what to copy. With --ak, witness lines are checked too, in which a "
		"TPM's attestation key has signed the log up to a line: at a start, then after an hour or 1,000 lines. Take that key "
		"from csm attest verify, once its link is proven. Notes are no faults: older files moved "
		"away, a gap that the daemon has told of, half a line taken off after a crash, lines that were gone at a start of "
		"the daemon and are here again.",
		cmd_audit_verify},
	{"audit", "tail", "[FILE]", 0, 1, SOCK_ADMIN, OPT(O_LINES) | OPT(O_FOLLOW), -1,
		"an array of lines, as they are in the log; with --follow one object a line", "show the last lines of the audit log",
		NULL, cmd_audit_tail},
	{"ca", "init", "[CHAIN.pem]", 0, 1, SOCK_NONE,
		OPTS_ISSUER | OPT(O_SUBJECT) | OPT(O_ALG) | OPT(O_BACKEND) | OPT(O_TTL) | OPT(O_ISSUER) | OPT(O_CSR) | OPT(O_CHAIN) | OPT(O_ADMIN) |
			OPT(O_OUTPUT) | OUTPUT_PUBLIC,
		-1, "an object with issuer, certificate, chain, root, root_sha256, not_after and administrator; with --csr, issuer and csr",
		"make csm-server's certificate authority",
		"On csm-server's host, as root: the key is made in the csmd beside it, with the rules that are given, for good. Without "
		"--csr its certificate is self-signed, and printed. With --csr FILE a request for an outside root is written; what "
		"that root has issued is then taken by csm ca init --chain CHAIN.pem: the authority's certificate first, the root last. "
		"With the authority's certificate comes the first administrator's: his key is made here, and goes to a file only.",
		cmd_ca_init},
	{"ca", "import", "CHAIN.pem [KEY]", 1, 2, SOCK_PUBLIC,
		OPTS_ISSUER | OPT(O_TO) | OPT(O_BACKEND) | OPT(O_ISSUER) | OPT(O_ADMIN) | OPT(O_PASSPHRASE_FILE) | OPT(O_OUTPUT) | OUTPUT_PUBLIC,
		-1,
		"an object with issuer, certificate, chain, root, root_sha256, not_after and administrator",
		"bring a certificate authority along that exists already",
		"KEY is the private key in PEM or PKCS#12; one PKCS#12 file in place of CHAIN.pem may hold both. The key is wrapped for "
		"the csmd beside csm-server before it leaves this process: for the one that is reached here, or, with --to, for the one "
		"whose csm status --json that file has. csm-server refuses a key in clear.",
		cmd_ca_import},
	{"ca", "show", "", 0, 0, SOCK_NONE, OPT(O_CHAIN) | OPT(O_DER) | OPT(O_ISSUER) | OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1,
		"an object with issuer, certificate, chain, root, root_sha256 and not_after", "print the authority's root certificate", NULL,
		cmd_ca_show},
	{"ca", "crl", "", 0, 0, SOCK_NONE, OPT(O_DER) | OPT(O_ISSUER) | OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1, "an object with crl (PEM)",
		"print the list of revoked certificates", NULL, cmd_ca_crl},
	{"ca", "cert list", "", 0, 0, SOCK_NONE,
		OPT(O_NAME) | OPT(O_SAN) | OPT(O_NODE) | OPT(O_REQUESTER) | OPT(O_PROFILE) | OPT(O_ISSUER) | OPT(O_SERIAL) | OPT(O_STATE) |
			OPT(O_EXPIRES_BEFORE) | OPT(O_EXPIRES_AFTER) | OPT(O_ISSUED_AFTER) | OPT(O_LIMIT) | OPT(O_AFTER) | OPT(O_CSV) | OPT(O_OUTPUT) |
			OUTPUT_PUBLIC,
		-1,
		"an array of objects, as GET /v1/cms/certificates has them; with --limit an object with certificates and next, the CURSOR of "
		"what follows, empty at the end",
		"list the certificates that were issued",
		"Each line has serial, state, end, profile, subject and names, the newest first, or the next to end first where that is asked. "
		"All that is asked has to match. With --csv all there is: serial, state, subject, san, node, issuer, profile, role, requester, "
		"spki_sha256, not_before, not_after, issued, revoked, reason, renews.",
		cmd_ca_cert_list},
	{"ca", "cert export", "", 0, 0, SOCK_NONE, OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1, "the same: it is JSON, a line a page",
		"write the whole inventory, signed",
		"A line for each page, as GET /v1/cms/inventory has it, signed by the key inventory-signer in the csmd beside csm-server. csm "
		"ca cert verify checks it, anywhere.",
		cmd_ca_cert_export},
	{"ca", "cert signer", "", 0, 0, SOCK_NONE, OPT(O_DER) | OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1, "an object with public (PEM)",
		"print the public half of the key that signs the inventory", NULL, cmd_ca_cert_signer},
	{"ca", "cert verify", "FILE", 1, 1, SOCK_NONE, OPT(O_KEY) | OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1,
		"an object with valid, certificates, pages, and from and to, when csm-server signed the first and the last page",
		"check a signed inventory, without csm-server",
		"FILE is what csm ca cert export wrote, - standard input. Checked is that the key of --key has signed each page, and that none is "
		"missing, changed, there twice, or from another copy. What was issued while it was written may or may not be in it. With -o "
		"its certificates are written, once all is proven, a line of JSON each, as GET /v1/cms/certificates has them.",
		cmd_ca_cert_verify},
	{"ca", "cert show", "SERIAL", 1, 1, SOCK_NONE, OPT(O_PEM) | OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1,
		"the object of GET /v1/cms/certificates/SERIAL", "show a certificate that was issued", NULL, cmd_ca_cert_show},
	{"ca", "cert revoke", "SERIAL", 1, 1, SOCK_NONE, OPT(O_REASON), -1, "csm-server's answer", "revoke a certificate", NULL,
		cmd_ca_cert_revoke},
	{"ca", "request list", "[STATE]", 0, 1, SOCK_NONE, 0, -1, "an array of objects, as GET /v1/cms/requests has them",
		"list the requests that wait for an approval",
		"Of a profile with approval: manual. STATE is waiting, which is the usual one, approved, denied or issued: what was decided is "
		"told for some days.",
		cmd_ca_request_list},
	{"ca", "request show", "ID", 1, 1, SOCK_NONE, 0, -1, "the object of GET /v1/cms/requests/ID", "show a request", NULL,
		cmd_ca_request_show},
	{"ca", "request approve", "ID [REASON]", 1, 2, SOCK_NONE, 0, -1, "csm-server's answer", "approve a request",
		"Whoever asked gets the certificate when he asks again, which csmd does by itself. Nobody approves a request of his own.",
		cmd_ca_request_approve},
	{"ca", "request deny", "ID [REASON]", 1, 2, SOCK_NONE, 0, -1, "csm-server's answer", "deny a request",
		"Whoever asked is told the reason when he asks again.", cmd_ca_request_deny},
	{"ca", "report", "", 0, 0, SOCK_NONE, OPT(O_CSV) | OPT(O_OUTPUT) | OUTPUT_PUBLIC, -1,
		"an array of objects, as GET /v1/cms/usage has them", "tell which certificates are in use, by whom, how much",
		"With --csv a line for each who used a certificate, and one for each that nobody did: serial, subject, node, not_after, in_use, "
		"signatures, last_used, key, program, identity, as GET /v1/cms/usage?format=csv has them.",
		cmd_ca_report},
	{"token", "create", "", 0, 0, SOCK_NONE, OPT(O_NAME) | OPT(O_PROFILE) | OPT(O_ANY_NAME) | OPT(O_TTL) | OPT(O_USES) | OPT(O_OUTPUT), -1,
		"an object with id, token, expires, uses, names, any_name, profile and role",
		"make a token that lets its bearer enrol",
		"Prints the token, once: csm-server keeps its hash. It is for the names of --name (dns:a.example; may be repeated), for "
		"what a profile allows, or for any name; for one certificate and one hour unless --uses and --ttl say otherwise. As "
		"password of HTTP Basic it goes with any user name.",
		cmd_token_create},
	{"token", "list", "", 0, 0, SOCK_NONE, 0, -1, "an array of objects with id, names, profile, expires, uses and used",
		"list enrolment tokens, without the tokens themselves", NULL, cmd_token_list},
	{"token", "revoke", "ID", 1, 1, SOCK_NONE, 0, -1, "nothing", "withdraw a token", NULL, cmd_token_revoke},
	{"help", NULL, "[OBJECT [VERB]]", 0, 2, SOCK_NONE, 0, -1, "nothing", "show help", NULL, cmd_help},
};
const size_t cli_commands_n = sizeof(cli_commands) / sizeof(cli_commands[0]);
