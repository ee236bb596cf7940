#!/bin/sh
# Resolve pyproject.toml (with its dev extra) in a throwaway environment and freeze it into requirements.lock.
set -eu
cd "$(dirname "$0")/.."

python=$(tools/find_python.sh)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

"$python" -m venv "$work/venv"
"$work/venv/bin/python" - >"$work/requirements" <<'PYTHON'
import tomllib
with open("pyproject.toml", "rb") as file:
    pyproject = tomllib.load(file)
extras = pyproject["project"]["optional-dependencies"]
print(*pyproject["build-system"]["requires"], *pyproject["project"]["dependencies"], *extras["dev"], sep="\n")
PYTHON
"$work/venv/bin/python" -m pip --disable-pip-version-check install --quiet --upgrade -r "$work/requirements"
{
    echo "# Every package of the environment, pinned; the same file serves Python 3.11 and 3.12."
    echo "# Made by \`make lock\` from pyproject.toml; don't edit by hand. \`make install\` installs it."
    echo "# torch: pip takes a CPU or a CUDA build, whichever its index offers; CUDA's own wheels follow from torch."
    # On Python 3.11 freeze leaves setuptools out unless asked for all.
    "$work/venv/bin/python" -m pip freeze --all --exclude pip --exclude wheel |
        sed -E -e '/^(nvidia|cuda|triton)[-=]/d' -e 's/^(torch==[^+]+)\+.*/\1/' | LC_ALL=C sort -f
} >"$work/lock"
mv "$work/lock" requirements.lock
chmod 644 requirements.lock
echo "requirements.lock: $(grep -c '^[^#]' requirements.lock) packages"
