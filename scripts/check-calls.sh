#!/bin/bash
# Calls that no C file makes. Comments and strings do not count. A use that is right all the same stands in
# scripts/lint/calls.allow with its number and its reason; a row that is not needed any more fails too.
#
# usage: check-calls.sh [ROOT]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${1:-$here/..}
cd "$root"

banned='strcpy|strcat|stpcpy|strncpy|strncat|sprintf|vsprintf|gets|strtok|strtok_r|atoi|atol|atoll|atof|alloca|system'
banned+='|popen|rand|srand|random|rand_r|drand48|tmpnam|tempnam|mktemp|setjmp|longjmp|sigsetjmp|siglongjmp'
banned+='|bzero|bcmp|bcopy|gethostbyname|asctime|ctime|localtime|gmtime|vfork|putenv'

allow=scripts/lint/calls.allow
[ -f "$allow" ] || allow=/dev/null

# One line a use: FILE:LINE: CALL
uses() {
    find . -path './build' -prune -o -name '*.[ch]' -printf '%P\n' | LC_ALL=C sort | while read -r file; do
        BANNED=$banned perl -0777 -ne '
            # Blank comments, strings and character constants, keep the lines.
            s{/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\x27(?:\\.|[^\x27\\\n])*\x27}{ $& =~ s/[^\n]//gr }gsex;
            my $n = 0;
            for my $line (split /\n/) {
                $n++;
                print "$ARGV:$n: $1\n" while $line =~ /(?<![\w.>])($ENV{BANNED})\s*\(/g;
                print "$ARGV:$n: assert-with-effect\n"
                    if $line =~ /\bassert\s*\((?:.*(?:\+\+|--)|.*[^=!<>]=[^=])/;
            }' "$file"
    done
}

uses | awk -v allow="$allow" '
BEGIN {
    while ((getline line < allow) > 0) {
        if (line ~ /^[ \t]*(#|$)/)
            continue
        n = split(line, f, /[ \t]+/)
        if (n < 4) {
            print allow ": a row is PATH CALL COUNT REASON: " line
            failed = 1
            continue
        }
        wanted[f[1] " " f[2]] = f[3]
    }
}
{
    split($1, where, ":")
    key = where[1] " " $2
    seen[key]++
    rows[key] = rows[key] $0 "\n"
}
END {
    for (key in seen)
        if (seen[key] != wanted[key] + 0) {
            printf "%s", rows[key]
            printf "%s: %d, allowed %d\n", key, seen[key], wanted[key]
            failed = 1
        }
    for (key in wanted)
        if (!(key in seen)) {
            printf "%s: allowed and not there any more\n", key
            failed = 1
        }
    exit failed
}'
