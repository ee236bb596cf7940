"""No notebook goes out with the traceback of a failed cell or with a machine's metadata in it (a pre-commit hook)."""

import json
import sys
from pathlib import Path

# Its own needs, and what every notebook says of its language.
KEPT = ("interp", "kernelspec", "language_info")


def problems(path: Path) -> list[str]:
    """What keeps ``path`` from being committed, a line each."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    found = [f"{path}: metadata '{key}'" for key in notebook["metadata"] if key not in KEPT]
    for number, cell in enumerate(notebook["cells"], start=1):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                found.append(f"{path}: cell {number} failed with {output['ename']}")
    return found


if __name__ == "__main__":
    names = sys.argv[1:] or sorted(map(str, Path("notebooks").glob("*.ipynb")))
    lines = [line for name in names for line in problems(Path(name))]
    if lines:
        raise SystemExit("\n".join([*lines, "Run `make notebooks` to store outputs anew."]))
