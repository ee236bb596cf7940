#!/bin/sh
# Resolve pyproject.toml (with its extras) in a throwaway environment and freeze it into requirements.lock.
# Needs both supported Pythons, because a few packages are wanted by 3.12 only; PYTHON311 and PYTHON312 name them.
set -eu
cd "$(dirname "$0")/.."

python311=$(PYTHON=${PYTHON311:-python3.11} tools/find_python.sh)
python312=$(PYTHON=${PYTHON312:-python3.12} tools/find_python.sh)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
pip="-m pip --disable-pip-version-check --no-input"

"$python311" -m venv "$work/3.11"
"$python312" -m venv "$work/3.12"
"$python311" - >"$work/requirements" <<'EOP'
import tomllib

with open("pyproject.toml", "rb") as file:
    pyproject = tomllib.load(file)
project = pyproject["project"]
requirements = pyproject["build-system"]["requires"] + project["dependencies"]
extras = project["optional-dependencies"].values()
print(*requirements, *(requirement for extra in extras for requirement in extra), sep="\n")
EOP

"$work/3.11/bin/python" $pip install --quiet -r "$work/requirements"
# `--all`: otherwise freeze leaves out setuptools, with which the package itself is built.
# CUDA's libraries are left out: they belong to one build of torch, and follow from it where pip chooses that build.
"$work/3.11/bin/python" $pip freeze --all --exclude pip --exclude wheel |
    sed -E -e '/^(nvidia|cuda|triton)[-=]/d' -e 's/^(torch==[^+]+)\+.*/\1/' >"$work/pins"

"$work/3.12/bin/python" $pip install --quiet --dry-run --report "$work/report" -c "$work/pins" -r "$work/requirements"
"$python312" - "$work/report" "$work/pins" >"$work/pins-3.12" <<'EOP'
import json
import re
import sys

report, pins = sys.argv[1:]
normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
pinned = {normal(line.partition("==")[0]) for line in open(pins)}
for package in json.load(open(report))["install"]:
    name, version = normal(package["metadata"]["name"]), package["metadata"]["version"]
    if name not in pinned and not re.match(r"nvidia-|cuda-|triton$", name):
        print(f'{name}=={version} ; python_version >= "3.12"')
EOP

{
    echo "# Every package of the environment, pinned; one file for Python 3.11 and 3.12."
    echo "# Made by \`make lock\` from pyproject.toml; don't edit by hand. \`make install\` installs it."
    echo "# torch: pip takes the CPU or the CUDA build, whichever its index offers."
    LC_ALL=C sort -f "$work/pins" "$work/pins-3.12"
} >"$work/lock"
cp "$work/lock" requirements.lock
echo "requirements.lock: $(grep -c '^[^#]' requirements.lock) packages"
