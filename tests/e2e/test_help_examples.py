"""Every example of every `--help` runs as it is printed, in the example project."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from headrace_control.cli import COMMANDS

ADDRESS = "http://127.0.0.1:8000"
# What takes minutes (and has tests of its own), what ends only when it is told to, and what is not on this machine.
NOT_RUN = re.compile(r"headrace (bench|demo|serve|top)\b|.*s3://")


def examples(name: str) -> list[str]:
    """The commands of a help page; one that goes on in the next lines is one command."""
    text = import_module(COMMANDS[name][0]).command.epilog or ""
    lines = [line[2:] for line in text.partition("Examples:\n")[2].splitlines()]
    found: list[str] = []
    for line in lines:
        if line.startswith(" "):
            found[-1] += "\n" + line
        else:
            found.append(line)
    return found


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=250
    )


@contextmanager
def served(folder: Path, command: str) -> Iterator[str]:
    """A server started as an example says, on free ports; the address is yielded."""
    program = [sys.executable, "-m", "headrace_control", *shlex.split(command)[1:]]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            found = re.search(r"http://\S+", ready)
            assert found, ready
            yield found[0]
        finally:
            process.terminate()


def write_policy(folder: Path) -> None:
    """The policy file of the examples, with one key."""
    done = shell("headrace keys create batch --scopes 'predict:*' --write access.toml", folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_of_the_help_runs(name: str, copy_of_trained: Path, tmp_path: Path) -> None:
    listed = examples(name)
    assert listed, f"headrace {name} --help has no example"
    shutil.copytree(copy_of_trained, copy_of_trained / "my_project")
    commands = [command for command in listed if not NOT_RUN.match(command)]
    if name == "restore":
        assert shell(examples("backup")[0], copy_of_trained).returncode == 0
    if name == "init":  # makes a folder of that name
        shutil.rmtree(copy_of_trained / "my_project")
    if name == "verify":  # what has been served
        asked = next(command for command in examples("predict") if "--clock" in command).replace("11-05T", "11-01T")
        done = shell(f"HEADRACE_PAYLOAD_SAMPLE=1 {asked}", copy_of_trained)
        assert done.returncode == 0, done.stderr
    if name == "audit":  # of a server that has refused somebody
        write_policy(copy_of_trained)
        with served(copy_of_trained, "headrace serve --http 127.0.0.1:0 --access access.toml") as address:
            assert "401" in shell(f"curl -sS -o /dev/null -w '%{{http_code}}' {address}/v2", tmp_path).stdout
    at_server = [command for command in commands if ADDRESS in command]
    for command in commands:
        if command not in at_server:
            done = shell(command, copy_of_trained)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            assert "error" not in done.stderr
    if at_server:
        with served(copy_of_trained, "headrace serve --http 0") as address:
            for command in at_server:
                done = shell(command.replace(ADDRESS, address).replace("curl ", "curl -sS --fail-with-body "), tmp_path)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_the_examples_of_serve_start_servers(copy_of_trained: Path) -> None:
    commands = [command for command in examples("serve") if command.startswith("headrace serve")]
    write_policy(copy_of_trained)
    for command in commands:
        # The ports of the examples may be taken on this machine.
        free = re.sub(r"8000", "0", re.sub(r"8002", "0", command)).replace(" --json", "")
        with served(copy_of_trained, free if "--http" in free else f"{free} --http 0"):
            pass


def test_what_predict_reads_from_the_table_is_as_old_as_its_help_says(copy_of_trained: Path) -> None:
    """The table of the fixture ends on 1 November, and the examples' clock comes after: nothing to warn about."""
    ask = [command for command in examples("predict") if "--clock" in command]
    for command in ask:
        assert "after the clock" not in shell(command, copy_of_trained).stderr
        earlier = command.replace("--clock 2013-11-05", "--clock 2013-10-05")
        assert "after the clock" in shell(earlier, copy_of_trained).stderr
