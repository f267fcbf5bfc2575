#!/usr/bin/env bash
# Builds the checker of histories: build.sh OUT
set -euo pipefail

if [[ $# -ne 1 ]]; then
    echo "usage: $0 OUT" >&2
    exit 2
fi
out=$(realpath -m -- "$1")
if ! command -v go >/dev/null; then
    echo "$0: building the checker needs Go 1.26 or newer" >&2
    exit 1
fi
mkdir -p -- "$(dirname -- "$out")"
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
CGO_ENABLED=0 go build -mod=readonly -trimpath -o "$out" .
