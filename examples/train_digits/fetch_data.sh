#!/usr/bin/env bash
# Fetches the handwritten digits that scikit-learn ships (UCI ML repository, optdigits test set: 1797 images of
# 8x8 pixels) out of Debian's package python3-sklearn, without installing it.
set -euo pipefail

usage() {
  cat <<EOF
Usage: ${0##*/} FILE
Writes the digits as CSV to FILE: a line an image, 64 pixels (0-16) and the digit. Does nothing when FILE is
there and right. Needs apt-get (a Debian system) and about 2 MB of download.
EOF
}

if [ $# -ne 1 ] || [ "$1" = --help ] || [ "$1" = -h ]; then
  usage
  [ "${1:-}" = --help ] || [ "${1:-}" = -h ] && exit 0
  exit 2
fi
file=$1
inside=usr/lib/python3/dist-packages/sklearn/datasets/data/digits.csv.gz
sha256=6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8

is_right() { [ -f "$1" ] && echo "$sha256  $1" | sha256sum --check --status; }

if is_right "$file"; then
  echo "digits: $file is there"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "digits: downloading Debian's python3-sklearn for its data file"
# apt drops its rights for downloads, so its user must be able to write here.
chmod 777 "$work"
(cd "$work" && apt-get download -qq python3-sklearn)
dpkg-deb --fsys-tarfile "$work"/python3-sklearn_*.deb | tar -x -C "$work" "./$inside"
gzip -dc "$work/$inside" >"$work/digits.csv"
if ! is_right "$work/digits.csv"; then
  echo "digits: the package's data are not what this example was written for (sha256 differs)" >&2
  exit 1
fi
mkdir -p "$(dirname "$file")"
cp "$work/digits.csv" "$file"
chmod 644 "$file"
echo "digits: wrote $file ($(wc -l <"$file") images)"
