#!/bin/bash
# In the lab's guest: the examples on rxe.   examples.sh BIN   with BIN the folder of the programs
set -e
"$1/sumac" run -n 2 -- "$1/put_get"
output=$("$1/sumac" run -n 2 --no-tag-output -- "$1/train_digits")
tail -n 3 <<<"$output"
accuracy=$(awk '/test accuracy/ { print $NF }' <<<"$output")
awk -v accuracy="$accuracy" 'BEGIN { exit !(accuracy >= 0.95) }' || { echo "accuracy $accuracy < 0.95"; exit 1; }
