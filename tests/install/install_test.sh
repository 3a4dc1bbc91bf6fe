#!/usr/bin/env bash
# Installs a build into a fresh prefix, and builds and runs an outside project against it.
#
#   install_test.sh BUILD_FOLDER
set -euo pipefail
build=$(realpath "$1")
project=$(realpath "$(dirname "$0")/project")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/prefix" >"$work/install.log" || { cat "$work/install.log"; exit 1; }
# A copy, so that nothing is found by a path relative to our tree.
cp -r "$project" "$work/project"
cmake -S "$work/project" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_BUILD_TYPE=Release
cmake --build "$work/build"

echo "--- one rank, no launcher"
timeout 60 "$work/build/outside" | tee "$work/one"
grep -qx 'allreduce of 1000 values among 1 ranks: each is 2.5' "$work/one"

echo "--- two ranks, started by the installed launcher"
timeout 60 "$work/prefix/bin/sumac" run -n 2 -- "$work/build/outside" | tee "$work/two"
[ "$(grep -c 'allreduce of 1000 values among 2 ranks: each is 5' "$work/two")" = 2 ]

echo "--- what is installed does not speak of where it was built"
if grep -rIl "$build\|$(dirname "$build")/" "$work/prefix/lib" "$work/prefix/include"; then
  echo "the files above hold paths of the build machine"
  exit 1
fi
