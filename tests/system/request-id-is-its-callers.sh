#!/bin/bash
# A request_id gives its first answer again to who made it, for the same request, and to nobody else: another home
# namespace, another uid, another socket; and not to a caller whose right has been taken.
. "$(dirname "$0")/../lib/system.sh"
if [ "${CSM_TEST_INSIDE:-}" != "$(realpath "$0")" ]; then
    policy=$(mktemp)
    trap 'rm -f "$policy"' EXIT
    cat >"$policy" <<'POLICY'
version: 1
default: uid-namespaces
identities:
  a: {uid: 1500, gid: 7001}
  b: {uid: 1500, gid: 7002}
namespaces:
  na: {home-of: [a]}
  nb: {home-of: [b]}
rules:
  - {allow: [key.create], to: [a], on: ["na:*"]}
  - {allow: [key.create], to: [b], on: ["nb:*"]}
POLICY
    CSM_TEST_POLICY=$policy CSM_TEST_INSIDE=$(realpath "$0") "$top/scripts/with-node.sh" --backend soft --policy "$policy" -- "$0"
    exit
fi
in_node --backend soft
py <<'PY'
import os, subprocess
from csmwire import ADMIN, Conn, Refused

def as_peer(uid, gid, method, params, socket=None):
    """The answer, or the name of the error."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        with (Conn(socket) if socket else Conn()) as conn:
            try:
                os.write(writing, repr(conn.call(method, params)).encode())
            except Refused as refusal:
                os.write(writing, repr(refusal.name).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    answer = eval(os.read(reading, 65536).decode())
    os.close(reading)
    return answer

make = {"key": "web", "request_id": "deploy-1"}
first = as_peer(1500, 7001, "key.create", make)
assert first["namespace"] == "na", first
assert as_peer(1500, 7001, "key.create", make) == first
other = as_peer(1500, 7002, "key.create", make)
assert other["namespace"] == "nb" and other["spki_sha256"] != first["spki_sha256"], other
third = as_peer(59101, 59101, "key.create", make)
assert third["namespace"] == "uid-59101", third
assert as_peer(1500, 7001, "key.create", dict(make, alg="p384")) == "conflict"
admin = as_peer(0, 0, "key.create", make, ADMIN)
public = as_peer(0, 0, "key.create", make)
assert admin["namespace"] == "uid-0" and public == "exists", (admin, public)

# The right is taken: the id does not bring the answer back.
with open(os.environ["CSM_TEST_POLICY"]) as f:
    text = f.read()
with open(os.environ["CSM_TEST_POLICY"], "w") as f:
    f.write("\n".join(line for line in text.split("\n") if "na:*" not in line))
subprocess.run(["csm", "policy", "reload"], check=True, stdout=subprocess.DEVNULL)
assert as_peer(1500, 7001, "key.create", make) == "denied"
assert as_peer(1500, 7002, "key.create", make) == other
PY
