#!/usr/bin/env bash
# Fuzzes the query parser, the remote-write receiver and the frame decoder.
#
#   collector/fuzz/run.sh SECONDS [TARGET...] [-- arguments of libFuzzer]
#
# What cargo-fuzz does (`cargo fuzz run -s none query` works too, in collector/), with the stable compiler: coverage by
# LLVM's own pass, no address sanitizer, which `unsafe_code = "forbid"` leaves little to find. Corpora are kept under
# target/fuzz; what crashes is written there and named. Input that crashed once belongs to seeds/ and to a test.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:?how many seconds per target?}
shift
targets=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do targets+=("$1"); shift; done
[ $# -eq 0 ] || shift
[ ${#targets[@]} -gt 0 ] || targets=(query remote_write frame)

host=$(rustc -vV | sed -n 's/^host: //p')
out=$PWD/../../target/fuzz
export CARGO_TARGET_DIR=$out
export RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
# --target keeps these flags away from build scripts.
cargo build --quiet --release --locked --target "$host" "${targets[@]/#/--bin=}"

for target in "${targets[@]}"; do
    mkdir -p "$out/corpus/$target" "$out/artifacts"
    printf '== fuzzing %s for %s s\n' "$target" "$seconds"
    dictionary=()
    [ ! -e "$target.dict" ] || dictionary=(-dict="$target.dict")
    log=$out/$target.log
    if ! "$out/$host/release/$target" "$out/corpus/$target" "seeds/$target" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=3000 -print_final_stats=1 -artifact_prefix="$out/artifacts/$target-" "${dictionary[@]}" "$@" >"$log" 2>&1; then
        tail -n 60 "$log"
        echo "$target failed; the input is in $out/artifacts, the whole log is $log"
        exit 1
    fi
    grep -E 'number_of_executed_units|average_exec_per_sec|peak_rss_mb' "$log"
done
