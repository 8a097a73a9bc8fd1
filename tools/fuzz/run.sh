#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# run.sh TARGET [IMAGE] [LIBFUZZER-OPTION...]: fuzzes the engine. TARGET is one of targets/*.rs;
# IMAGE is the sound volume that `damage` starts from, by default rust/tests/images/tiny.img.xz.
# What is found stays in build/fuzz/TARGET, and so does the corpus. Needs cargo, g++ and xz, on the
# host or in the toolchain root (`qemu/in-root tools/fuzz/run.sh …`).
set -euo pipefail
cd "$(dirname "$0")"
checkout=$(cd ../.. && pwd)
target=${1:?usage: run.sh TARGET [IMAGE] [LIBFUZZER-OPTION...]}
shift
work=$checkout/build/fuzz/$target
mkdir -p "$work/corpus"

image=$checkout/rust/tests/images/tiny.img.xz
if [ -f "${1:-}" ]; then
	image=$1
	shift
fi
case $image in
*.xz) xz -dc "$image" >"$work/image" ;;
*) cp "$image" "$work/image" ;;
esac

# What cargo-fuzz gives the compiler. RBTRFS_SANITIZER=address needs one of rustup's toolchains, and
# ten times the time; the engine has no unsafe code.
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$checkout/build/fuzz/cargo
flags="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
	flags+=" -Cllvm-args=-sanitizer-coverage-$option"
done
[ -z "${RBTRFS_SANITIZER:-}" ] || flags+=" -Zsanitizer=$RBTRFS_SANITIZER"
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS=$flags cargo build --quiet --release --target "$host" --bin "$target"

cd "$work"
RBTRFS_FUZZ_IMAGE=$work/image exec "$CARGO_TARGET_DIR/$host/release/$target" corpus -timeout=30 -rss_limit_mb=4096 "$@"
