"""`python -m headrace_control`: the `headrace` command, where the script is not on the path."""

from __future__ import annotations

from headrace_control.cli import main

if __name__ == "__main__":
    main(prog_name="headrace")
