"""Fuzzes every reader of hostile input for a while and keeps what it finds. See README.md beside this file.

Usage: python tests/attacks/fuzz.py [--seconds N] [TARGET ...]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KEPT = HERE / "kept"
INPUT_BYTES_MAX = 64 * 1024
MEMORY_MIB_MAX = 1024
ONE_INPUT_SECONDS_MAX = 10

# libFuzzer's instrumentation, by flags that a stable compiler takes.
COVERAGE = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions=yes",
    "-Coverflow-checks=yes",
]


def target_folder() -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "fuzz"


def host() -> str:
    """The machine's target triple; naming it keeps the flags away from build scripts."""
    told = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    return next(line.removeprefix("host: ") for line in told.splitlines() if line.startswith("host: "))


def build() -> Path:
    triple = host()
    environment = {**os.environ, "RUSTFLAGS": " ".join(COVERAGE), "CARGO_TARGET_DIR": str(target_folder())}
    command = ["cargo", "build", "--release", "--locked", "--target", triple, "-p", "headrace-attacks"]
    command += [
        "--features",
        "fuzz",
        "--config",
        "profile.release.lto=false",
        "--config",
        "profile.release.opt-level=1",
    ]
    command += ["--config", "profile.release.codegen-units=16"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return target_folder() / triple / "release" / "headrace-fuzz"


def fuzz(binary: Path, target: str, seconds: int) -> list[Path]:
    """Runs one target and moves what ended it beside the kept inputs; gives the new files."""
    corpus = target_folder() / "corpus" / target
    finds = target_folder() / "finds" / target
    for folder in (corpus, finds):
        folder.mkdir(parents=True, exist_ok=True)
    command = [str(binary), str(corpus), str(KEPT / target), f"-artifact_prefix={finds}/"]
    command += [f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", f"-timeout={ONE_INPUT_SECONDS_MAX}"]
    command += [f"-rss_limit_mb={MEMORY_MIB_MAX}", f"-malloc_limit_mb={MEMORY_MIB_MAX // 2}", "-print_final_stats=1"]
    log = finds.with_suffix(".log")
    with log.open("wb") as output:
        environment = {**os.environ, "HEADRACE_FUZZ_TARGET": target}
        done = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False)
    text = log.read_text(encoding="utf-8", errors="replace")
    runs = next((line.split()[-1] for line in text.splitlines() if "number_of_executed_units" in line), "?")
    found = []
    for find in sorted(finds.iterdir()):
        kept = KEPT / target / find.name
        shutil.move(find, kept)
        found.append(kept)
    print(
        f"{target:20} {runs:>12} inputs   {len(found)} found{'' if done.returncode == 0 else f'   see {log}'}",
        flush=True,
    )
    return found


def main() -> int:
    targets = sorted(folder.name for folder in KEPT.iterdir() if folder.is_dir())
    parser = argparse.ArgumentParser(description="Fuzz the readers of hostile input.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of: {', '.join(targets)}; none means all")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.targets) - set(targets)):
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(targets)}")
    binary = build()
    found = [find for name in arguments.targets or targets for find in fuzz(binary, name, arguments.seconds)]
    for find in found:
        print(f"kept {find.relative_to(ROOT)}: `make test-rust` fails on it until it is mended")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
