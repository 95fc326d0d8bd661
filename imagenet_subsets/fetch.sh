#!/usr/bin/env bash
# Fetches the original's lists of 1 % and 10 % of ImageNet's training images, and checks them: SHA-256, lines, classes.
#
#   imagenet_subsets/fetch.sh [FOLDER]       # here by default; lists that are there and right are left alone
#
# SIMCLR_SUBSETS_FROM is a URL to fetch from instead of the original's repository, such as file:///mirror.
set -euo pipefail
folder=${1:-$(dirname "$0")}
from=${SIMCLR_SUBSETS_FROM:-https://raw.githubusercontent.com/google-research/simclr/383d4143fd8cf7879ae10f1046a9baeb753ff438/imagenet_subsets}

fail() { echo "fetch.sh: $*" >&2; exit 1; }

right() { # FILE SHA-256
  [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status
}

# list NAME SHA-256 LINES
list() {
  local file=$folder/$1
  if ! right "$file" "$2"; then
    [ ! -e "$file" ] || fail "$file is there with another SHA-256, expected $2; move it away"
    curl -fsSL -o "$file.part" "$from/$1" || { rm -f "$file.part"; fail "$from/$1 could not be fetched; set SIMCLR_SUBSETS_FROM"; }
    right "$file.part" "$2" || { rm -f "$file.part"; fail "$from/$1 has another SHA-256, expected $2; it was not kept"; }
    mv "$file.part" "$file"
  fi
  local lines classes
  lines=$(wc -l < "$file")
  classes=$(cut -d _ -f 1 "$file" | sort -u | wc -l)
  [ "$lines" -eq "$3" ] && [ "$classes" -eq 1000 ] || fail "$file has $lines lines and $classes classes, expected $3 and 1000"
  echo "$file: $lines images of $classes classes, SHA-256 right"
}

mkdir -p "$folder"
list 1percent.txt 71e82a48ba78252683ae334c4d019ebd5c6e855b9599c1389fbe83eb9549cf17 12811
list 10percent.txt 6d09de11e7bdaf5b1f3b1f249b6183695f97310cdd20f0c03e7235b6b9392091 128116
