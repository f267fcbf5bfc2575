#!/usr/bin/env bash
# Builds konsul, konsul-faults and the checker, all but the checker for debugging, and runs the rig. Arguments go to
# `konsul-faults run`; see `konsul-faults run --help`.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}

cargo build --quiet --locked --manifest-path "$root/Cargo.toml" -p konsul -p konsul-faults
"$root/faults/checker/build.sh" "$target/faults-checker"

# The members' disks belong on a real one, which a temporary directory need not be; the target directory is.
exec "$target/debug/konsul-faults" run --checker "$target/faults-checker" --dir "$target" "$@"
