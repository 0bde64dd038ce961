"""`python -m headrace`: the data plane alone. The command `headrace` comes with headrace-control."""

from __future__ import annotations

import argparse
import sys

from headrace import __version__


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m headrace", description="The data plane of headrace.")
    parser.add_argument("--version", action="version", version=f"headrace {__version__}")
    parser.parse_args()
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
