# shellcheck shell=bash
# What the scripts in this folder share: how they speak, and how a bare Debian machine gets what it lacks.

# Servers and chroot live there; a normal user's PATH may not name it.
PATH=$PATH:/usr/sbin:/sbin

say() {
  printf '%s\n' "$*"
}

heading() {
  if [ -t 1 ]; then
    printf '\n\033[1m%s\033[0m\n' "$*"
  else
    printf '\n== %s\n' "$*"
  fi
}

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "installing packages needs root: run as root once, or install sudo"
  fi
}

# apt-get that speaks only when it fails.
apt() {
  local output
  output=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" 2>&1) || {
    printf '%s\n' "$output" >&2
    return 1
  }
}

# Installs those of the named Debian packages that are missing. Servers among them are not started, and PostgreSQL gets no
# cluster: the tests start their own. The two files that say so exist only for that long; what was there comes back.
install_packages() (
  missing=()
  for package in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null) || true
    [ "$status" = "ii " ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "this is not Debian: install by hand what these packages hold: ${missing[*]}"
  say "installing ${missing[*]}"

  trap 'exit 130' INT
  trap 'exit 143' TERM
  kept=$(mktemp -d)
  services=/usr/sbin/policy-rc.d
  clusters=/etc/postgresql-common/createcluster.conf

  trap 'put_back "$kept" "$services"; rm -r "$kept"' EXIT
  replace "$kept" "$services" '#!/bin/sh' 'exit 101'
  as_root chmod 755 "$services"
  apt update
  if [[ " ${missing[*]} " == *" postgresql "* ]]; then
    # First by itself, so that the file is the package's own and dpkg has nothing to ask about it.
    apt install --no-install-recommends postgresql-common
    trap 'put_back "$kept" "$services"; put_back "$kept" "$clusters"; rm -r "$kept"' EXIT
    replace "$kept" "$clusters" 'create_main_cluster = false'
  fi
  apt install --no-install-recommends "${missing[@]}"
)

# replace KEPT FILE LINE...: FILE holds the lines; what it held is in the folder KEPT.
replace() {
  local kept=$1 file=$2
  [ ! -e "$file" ] || cp -p "$file" "$kept"
  printf '%s\n' "${@:3}" | as_root tee "$file" >/dev/null
}

# put_back KEPT FILE: FILE is again what it was before `replace`.
put_back() {
  local kept=$1/${2##*/}
  if [ -e "$kept" ]; then
    as_root cp -p "$kept" "$2"
  else
    as_root rm -f "$2"
  fi
}

# Fails unless each program is there: a package may be installed and yet hidden, by a PATH or by another version manager.
need_programs() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || die "$program is not found in PATH"
  done
}

# Fails unless the `ruby` in PATH is one that has Rails.
need_rails() {
  ruby -e 'require "rails"' 2>/dev/null ||
    die "$(command -v ruby) has no Rails; Debian's /usr/bin/ruby has it (package ruby-rails): put it first in PATH"
}

# Where cargo puts what it builds.
target_dir() {
  cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

# build PACKAGE [OPTION...]: builds its binary of the same name and prints where that is.
build() {
  cargo build --quiet --package "$1" --bin "$1" --message-format=json-render-diagnostics "${@:2}" |
    grep -o "\"executable\":\"[^\"]*/$1\"" | cut -d'"' -f4
}

# as_released COMMAND...: a cargo command with what every release build is given: no path of this machine is in the binary, so that
# two builds are equal.
as_released() {
  local cargo_home=${CARGO_HOME:-$HOME/.cargo} target_dir flags
  target_dir=$(target_dir)
  # The parts in C name their files in assertions. Quoted for a shell, since a folder's name may hold a blank.
  printf -v flags ' -ffile-prefix-map=%q=/cargo -ffile-prefix-map=%q=/unstuck/target' "$cargo_home" "$target_dir"
  # The last that fits counts: the folder of what is built may be inside of this one, or anywhere.
  CC_SHELL_ESCAPED_FLAGS=1 CFLAGS="${CFLAGS:-}$flags" "$@" --config \
    "target.'cfg(all())'.rustflags = ['--remap-path-prefix=$cargo_home=/cargo', '--remap-path-prefix=$PWD=/unstuck', '--remap-path-prefix=$target_dir=/unstuck/target']"
}

# build_release [OPTION...]: the binary that is published.
# shellcheck disable=SC2120 # Not every caller has an option.
build_release() {
  as_released build unstuck --release --locked "$@"
}
