# Sourced by the scripts beside it: where the tree is, progress lines with the time, presets and their folders.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
started=$SECONDS
jobs=${SUMAC_JOBS:-$(nproc)}

# say TEXT: one progress line with the time since the script began.
say() { printf '[%3d s] %s\n' $((SECONDS - started)) "$*"; }

# fail TEXT: why, on standard error, and exit code 1.
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# usage: prints the comment at the head of the script, which is its help text.
usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; }

# build_folder PRESET: as CMakePresets.json has it.
build_folder() {
  case $1 in
    release) echo "$root/build" ;;
    *) echo "$root/build-$1" ;;
  esac
}
