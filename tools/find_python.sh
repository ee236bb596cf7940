#!/bin/sh
# Print the Python to build .venv with. $PYTHON, when set, is the only candidate.
# A failure is one line on stderr that says what was found and what works.
set -u

supported="3.11 3.12" # pyproject.toml: requires-python (tests/test_packaging.py compares them)
found=""

for candidate in ${PYTHON:-python3.11 python3.12 python3 python}; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    # A version manager's shim can exist for a version that is not installed: then this fails.
    version=$("$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue
    case " $supported " in
    *" ${version%.*} "*)
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "$candidate"
            exit 0
        fi
        version="$version without venv (Debian, Ubuntu: apt-get install python${version%.*}-venv)"
        ;;
    esac
    case ", $found, " in *", $version, "*) ;; *) found="${found:+$found, }$version" ;; esac
done

echo "interp-lib runs on Python 3.11 or 3.12; found ${found:-no Python${PYTHON:+ at $PYTHON}}." \
    "Install one that works, or name it: make install PYTHON=/path/to/python3.12" >&2
exit 1
