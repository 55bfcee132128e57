#!/bin/bash
# Which certificates are in use, by whom, and which are not: nodes report the signatures of their keys now and then.
set -euo pipefail
reported() { csm ca report | tee report | grep -qE 'yes .*/CN=orders'; }
for _ in $(seq 60); do
    ! reported || break
    sleep 1
done
cat report
grep -qE 'yes .*/CN=orders' report
