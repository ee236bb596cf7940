#!/bin/sh
# Create or repair .venv with the pins of requirements.lock. Does nothing, quickly, when .venv is up to date.
#   PYTHON  the interpreter to build it with (default: the first of python3.11, python3.12, python3, python that works)
#   TORCH   another torch than the lock's: a requirement ('torch==2.13.0+cu130'), or 'system' for the one PYTHON has.
#           Remembered in .venv/.torch, so that later calls keep it; TORCH=lock returns to the pin.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/.installed     # what the finished environment was made from
unfinished=$venv/.unfinished # exists while pip is at work: an interrupted install may have left half a package

torch=${TORCH:-$(cat $venv/.torch 2>/dev/null || echo lock)}
# The scripts inside .venv hold its absolute path, so a moved checkout needs a new one.
made_from="$(cat requirements.lock pyproject.toml | cksum) torch=$torch in $(pwd)"

if [ -n "${PYTHON:-}" ]; then
    python=$(tools/find_python.sh)
    wanted=$("$python" -c 'import sys; print(sys.version_info[:2])')
else
    wanted=""
fi
current=$($venv/bin/python -c 'import sys; print(sys.version_info[:2])' 2>/dev/null || true)
if [ "$(cat $stamp 2>/dev/null)" = "$made_from" ] && [ -n "$current" ] && [ "${wanted:-$current}" = "$current" ]; then
    exit 0
fi

python=${python:-$(tools/find_python.sh)}
case "$(uname -s)-$(uname -m)" in
Linux-x86_64) ;;
*) echo "Note: Procgen's wheels are published for Linux on x86-64; on $(uname -s) $(uname -m) pip may not find one." ;;
esac
isolation=""
if [ "$torch" = system ]; then
    isolation=--system-site-packages
    "$python" -c 'import torch' 2>/dev/null || {
        echo "TORCH=system needs a Python that has torch, and $python has none: name another with PYTHON=..." >&2
        exit 1
    }
fi

shared=$(sed -n 's/^include-system-site-packages = //p' $venv/pyvenv.cfg 2>/dev/null || true)
if [ -e $unfinished ] || [ -z "$current" ] || [ "${wanted:-$current}" != "$current" ] ||
    [ "$shared" != "$([ -n "$isolation" ] && echo true || echo false)" ] || ! $venv/bin/python -m pip --version >/dev/null 2>&1; then
    [ ! -e $unfinished ] || echo "The last installation did not finish: starting again."
    echo "Creating .venv with $("$python" --version 2>&1)"
    rm -rf $venv
    mkdir $venv
    touch $unfinished
    "$python" -m venv $isolation $venv
fi
touch $unfinished
rm -f $stamp

requirements=$venv/.requirements
case "$torch" in
lock) cp requirements.lock $requirements ;;
system) sed '/^torch==/d' requirements.lock >$requirements ;;
*) sed '/^torch==/d' requirements.lock >$requirements && echo "$torch" >>$requirements ;;
esac

echo "Installing $(grep -c '^[^#]' $requirements) pinned packages into .venv"
[ -t 1 ] && quiet="" || quiet=--quiet
pip="$venv/bin/python -m pip --disable-pip-version-check --no-input"
$pip install $quiet -r $requirements
# setuptools is pinned too, so building the package itself needs no second download.
$pip install $quiet --no-deps --no-build-isolation -e .

echo "$torch" >$venv/.torch
echo "$made_from" >$stamp
rm -f $unfinished
echo "Installed. Check this machine with: .venv/bin/interp doctor"
