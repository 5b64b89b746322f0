# Shared by the scripts: finds a Python, makes a virtual environment of its own, installs what is pinned.
# Usage: . scripts/env.sh NAME REQUIREMENTS   -> sets $PYTHON and changes to the checkout.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf '%s\n' "$*" >&2; }

find_python() {
  for name in "${HUB_PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
    [ -n "$name" ] || continue
    if command -v "$name" >/dev/null 2>&1 &&
      "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
  done
  say "Mailyard needs Python 3.11, 3.12 or 3.13 with venv; none was found. Install one, or name it in HUB_PYTHON."
  exit 1
}

checksum() { # of the files given, with what every machine has
  "$1" - "${@:2}" <<'PY'
import hashlib, sys
print(hashlib.sha256(b"".join(open(name, "rb").read() for name in sys.argv[1:]) + sys.version.encode()).hexdigest())
PY
}

make_environment() { # NAME REQUIREMENTS
  local base folder stamp
  base=$(find_python)
  folder="${HUB_VENV_DIR:-.}/.venv-$1"
  PYTHON="$folder/bin/python"
  stamp=$(checksum "$base" requirements-build.txt "$2" pyproject.toml)
  if [ -x "$PYTHON" ] && [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  say "Setting up $folder with $("$base" --version) (once; about a minute)"
  "$base" -m venv --clear "$folder"
  # Packages that come as source only are built by tools that are pinned, too.
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.txt >&2
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation -r "$2" >&2
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . >&2
  printf '%s\n' "$stamp" >"$folder/stamp"
}

make_environment "$1" "$2"
export PYTHON
