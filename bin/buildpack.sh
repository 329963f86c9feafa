# shellcheck shell=bash
# What the buildpack's scripts share, classic and Cloud Native. They run on other people's machines: nothing but bash and the
# tools of Heroku's build images is used.

buildpack=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Heroku sets it for its own clone; a git command of ours would look there.
unset GIT_DIR

heading() {
  printf -- '-----> %s\n' "$*"
}

say() {
  printf '       %s\n' "$*"
}

# warn LINE...: as Heroku's own buildpacks print a warning.
warn() {
  printf ' !     %s\n' "$@" >&2
}

die() {
  warn "$@"
  exit 1
}

# about KEY: this value of buildpack.toml; nothing where it is not there.
about() {
  sed -n "s/^$1 = \"\\(.*\\)\"\$/\\1/p" "$buildpack/buildpack.toml" | head -n 1
}

# Whether the folder holds a Rails application, or another one that keeps migrations as Rails does.
holds_rails() {
  [ -e "$1/bin/rails" ] || [ -e "$1/config/application.rb" ] || [ -e "$1/config/database.yml" ] || [ -d "$1/db/migrate" ]
}

# What stands above the line that add_release writes.
added='# Added by the buildpack unstuck, since there was no release line:'

# own_release FOLDER: the command of the Procfile's own release line; nothing where there is none. Heroku takes the last of several,
# and reads a line without a colon, but none without a blank behind it.
own_release() {
  [ -f "$1/Procfile" ] || return 0
  sed "/^$added\$/,\$d" "$1/Procfile" | tr -d '\r' |
    sed -nE 's/^[[:space:]]*release:?[[:space:]]+([^[:space:]].*)$/\1/p' | tail -n 1
}

# add_release FOLDER: the release line, for a Procfile that has none. A default process type alone would be lost: Heroku takes
# those of the last buildpack only, and reads the Procfile after all of them.
add_release() {
  ! grep -qsxF "$added" "$1/Procfile" || return 0
  # The last line may lack its end.
  [ -z "$(tail -c 1 "$1/Procfile" 2>/dev/null)" ] || echo >>"$1/Procfile"
  printf '%s\nrelease: unstuck migrate\n' "$added" >>"$1/Procfile"
}

# runs_unstuck COMMAND FOLDER: whether the command migrates with unstuck, by itself or in a script of the application.
runs_unstuck() {
  local migrates='unstuck([[:space:]].*)?[[:space:]]migrate' word words
  ! [[ $1 =~ $migrates ]] || return 0
  read -ra words <<<"$1"
  for word in "${words[@]}"; do
    if [ -f "$2/$word" ] && grep -qE "$migrates" "$2/$word"; then
      return 0
    fi
  done
  return 1
}

# needs_key SETTINGS FOLDER: whether a migration needs the API's key in order to restart, and has none.
needs_key() {
  [ -z "$(setting HEROKU_API_KEY "$1")" ] && [ "$(setting UNSTUCK_RESTART_POLICY "$1")" != handoff ] &&
    ! grep -qsE '^[^#]*\<policy:[[:space:]]*["'\'']?handoff' "$2/.unstuck.yml"
}

# The machine that the image is for: Cloud Native builds name it, classic ones run on it.
machine() {
  case "${CNB_TARGET_ARCH:-$(uname -m)}" in
    amd64 | x86_64) echo x86_64 ;;
    arm64 | aarch64) echo aarch64 ;;
    *) die "there is no unstuck for ${CNB_TARGET_ARCH:-$(uname -m)}" ;;
  esac
}

sum_of() {
  sha256sum <"$1" | cut -d ' ' -f 1
}

# setting NAME FOLDER: a config var of the build: a file in FOLDER, as both kinds of buildpacks get it, or the environment.
setting() {
  if [ -f "$2/$1" ]; then
    cat "$2/$1"
  else
    printf '%s' "${!1:-}"
  fi
}

# fetch TARGET CACHE SETTINGS: puts the binary at TARGET, verified, and sets `origin` to where it is from. An archive that carries
# it needs no network. Otherwise there is one download, none while CACHE has what is asked for.
fetch() {
  local target=$1 cache=$2 settings=$3 machine carried url wanted
  machine=$(machine)
  carried=$buildpack/dist/$machine/unstuck
  mkdir -p "$(dirname "$target")"

  if [ -f "$carried" ]; then
    wanted=$(sed -n "s|^\\([0-9a-f]\\{64\\}\\)  $machine/unstuck\$|\\1|p" "$buildpack/dist/SHA256SUMS")
    [ "$(sum_of "$carried")" = "$wanted" ] ||
      die "The binary in this buildpack is not the one that was packed." "Take a fresh copy of the buildpack's archive."
    install -m 755 "$carried" "$target"
    origin=carried
    return
  fi

  url=$(setting UNSTUCK_BUILDPACK_URL "$settings")
  wanted=$(setting UNSTUCK_BUILDPACK_SHA256 "$settings")
  url=${url:-$(about "url_$machine")}
  wanted=${wanted:-$(about "sha256_$machine")}
  wanted=$(tr -d '[:space:]' <<<"$wanted" | tr A-F a-f)
  if [ -z "$url" ] || [ -z "$wanted" ]; then
    die "This copy of the buildpack carries no binary for $machine and knows of none to download." \
      "Use the archive unstuck-buildpack-VERSION.tgz of a release (bin/package makes one)," \
      "or name an archive: UNSTUCK_BUILDPACK_URL and UNSTUCK_BUILDPACK_SHA256, both as config vars."
  fi

  if [ "$(cat "$cache/sha256" 2>/dev/null)" = "$wanted" ] && [ -x "$cache/unstuck" ] &&
    [ "$(sum_of "$cache/unstuck")" = "$(cat "$cache/sum" 2>/dev/null)" ]; then
    install -m 755 "$cache/unstuck" "$target"
    origin=cache
    return
  fi
  download "$url" "$wanted" "$cache"
  install -m 755 "$cache/unstuck" "$target"
  origin=download
}

# download URL SHA256 CACHE: the archive, verified before it is opened; what it holds goes to CACHE.
download() {
  local url=$1 wanted=$2 cache=$3 scratch found code=0
  scratch=$(mktemp -d)
  # The address may hold a password: it is not printed, and neither is what curl says of it.
  curl --silent --fail --location --retry 3 --retry-connrefused --connect-timeout 10 --max-time 120 \
    --output "$scratch/archive" -- "$url" 2>/dev/null || code=$?
  if [ "$code" != 0 ]; then
    rm -rf "$scratch"
    die "The download failed: curl ended with $code (man curl, EXIT CODES)." \
      "Try again, or use the archive that carries the binary."
  fi
  found=$(sum_of "$scratch/archive")
  if [ "$found" != "$wanted" ]; then
    rm -rf "$scratch"
    die "What was downloaded is not what was asked for; nothing of it is used." "expected sha256 $wanted" "found    sha256 $found"
  fi
  if ! tar -xzf "$scratch/archive" -C "$scratch" --wildcards --transform 's|.*/||' '*/unstuck' 2>/dev/null; then
    rm -rf "$scratch"
    die "The archive is damaged, or holds no file 'unstuck' in a folder."
  fi
  rm -rf "$cache"
  mkdir -p "$cache"
  install -m 755 "$scratch/unstuck" "$cache/unstuck"
  sum_of "$cache/unstuck" >"$cache/sum"
  printf '%s\n' "$wanted" >"$cache/sha256"
  rm -rf "$scratch"
}

# announce BINARY SETTINGS FOLDER: what was installed, and what will run it.
announce() {
  local binary=$1 settings=$2 folder=$3 line version
  version=$("$binary" --version) || die "The binary does not run on this stack (${STACK:-unknown})."
  say "$version, $origin"
  line=$(own_release "$folder")
  if [ -z "$line" ]; then
    say "The Procfile has no release line: added 'release: unstuck migrate'"
  elif runs_unstuck "$line" "$folder"; then
    say "The Procfile runs it: 'release: $line'"
  else
    warn "The Procfile's release line does not run 'unstuck migrate': 'release: $line'" \
      "Make it 'release: unstuck migrate', or migrations stay without their restart."
  fi
  if needs_key "$settings" "$folder"; then
    warn "HEROKU_API_KEY is not set: unstuck will refuse to migrate, since it could not restart." \
      "Make a token: heroku authorizations:create --description unstuck --scope read,write" \
      "and set it:   heroku config:set HEROKU_API_KEY=TOKEN"
  fi
}
