#!/bin/bash
# The test-suite of rdma-core's pyverbs, as the package python3-pyverbs ships it among its documentation (which images of
# systems often leave out).
#
#   fetch_pyverbs_tests.sh FOLDER     makes FOLDER/tests
set -euo pipefail
folder=$1
installed=/usr/share/doc/rdma-core/tests
work=$(mktemp -d)
chmod 777 "$work" # apt drops its rights for downloads
trap 'rm -rf "$work"' EXIT
if [ ! -d "$installed" ]; then
  (cd "$work" && apt-get -q -q download python3-pyverbs && dpkg-deb -x python3-pyverbs_*.deb .)
  installed=$work$installed
fi
mkdir -p "$folder"
rm -rf "$folder/tests.new" "$folder/tests"
cp -r "$installed" "$folder/tests.new"
find "$folder/tests.new" -name '*.gz' -exec gunzip {} +
mv "$folder/tests.new" "$folder/tests"
