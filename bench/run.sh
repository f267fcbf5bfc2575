#!/usr/bin/env bash
# Builds etcd (once), konsul and konsul-bench, measures, and writes bench/results/ and the table in
# bench/README.md. Arguments go to `konsul-bench run`; see `konsul-bench run --help`.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
# Another pinned version is another file, so that it is built anew.
version=$(awk '$1 == "require" && $2 == "go.etcd.io/etcd/server/v3" { print $3 }' "$root/bench/etcd/go.mod")
etcd=${XDG_CACHE_HOME:-$HOME/.cache}/konsul/etcd-$version

if [[ ! -x $etcd ]]; then
    echo "building etcd $version" >&2
    "$root/bench/etcd/build.sh" "$etcd"
fi
cargo build --release --manifest-path "$root/Cargo.toml" -p konsul -p konsul-bench

# The servers' data belongs on a disk, which a temporary directory need not be; the target directory is.
arguments=(--peer "$etcd" --dir "$target")
# A look whether all works, or at one row, must not replace the table of a whole run.
whole=true
for argument in "$@"; do
    case $argument in
        --quick | --rows | --rows=* | --out | --out=* | -h | --help) whole=false ;;
    esac
done
if $whole; then
    arguments+=(--out "$root/bench/results")
fi
"$target/release/konsul-bench" run "${arguments[@]}" "$@"
if $whole; then
    "$target/release/konsul-bench" report --update-readme --results "$root/bench/results"
fi
