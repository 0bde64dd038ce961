"""Prints the longest source files and functions: information for whoever looks for a place to tidy, not a limit.

Usage: python tests/tidy/lengths.py [HOW_MANY]
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("core", "native", "pyplatform", "control", "bench", "tests")
RUST_FUNCTION = re.compile(r"^( *)(?:pub(?:\([^)]*\))? )?(?:const )?(?:async )?(?:unsafe )?(?:extern \"C\" )?fn (\w+)")


def functions(path: Path, text: str) -> list[tuple[int, str]]:
    """(lines, name) of each function; Rust by its indentation, which rustfmt fixes."""
    if path.suffix == ".py":
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        return [((node.end_lineno or node.lineno) - node.lineno + 1, node.name) for node in nodes]
    found = []
    lines = text.splitlines()
    for start, line in enumerate(lines):
        if match := RUST_FUNCTION.match(line):
            end = next((n for n in range(start, len(lines)) if lines[n] == match[1] + "}"), start)
            found.append((end - start + 1, match[2]))
    return found


def main() -> None:
    how_many = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    files: list[tuple[int, str]] = []
    bodies: list[tuple[int, str]] = []
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix not in {".rs", ".py"} or ".venv" in path.parts or "target" in path.parts:
                continue
            text = path.read_text(encoding="utf-8")
            name = str(path.relative_to(ROOT))
            files.append((text.count("\n"), name))
            bodies.extend((lines, f"{name}: {function}") for lines, function in functions(path, text))
    for title, entries in (("files", files), ("functions", bodies)):
        print(f"longest {title}, of {len(entries)} with {sum(lines for lines, _ in entries):,} lines in all")
        for lines, name in sorted(entries, reverse=True)[:how_many]:
            print(f"{lines:6}  {name}")


if __name__ == "__main__":
    main()
