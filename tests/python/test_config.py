from __future__ import annotations

from pathlib import Path

import pytest

from headrace.config import load_config
from headrace.errors import HeadraceError


def write(root: Path, text: str) -> Path:
    (root / "headrace.toml").write_text(text)
    return root


def test_defaults_are_on_loopback_and_survive_a_killed_process(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, ""), environ={})
    assert config.name == tmp_path.name
    assert (config.server.host, config.server.http_port, config.server.metrics_port) == ("127.0.0.1", 8000, 8002)
    assert config.server.metrics_host == "127.0.0.1"
    assert config.online.durability == "process"
    assert config.state == tmp_path / ".headrace"


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    write(tmp_path, '[online]\ndurability = "process"\n[server]\nhttp_port = 1\nrefresh_seconds = 2\n')
    environ = {"HEADRACE_ONLINE_DURABILITY": "disk", "HEADRACE_SERVER_HTTP_PORT": "8100"}
    config = load_config(tmp_path, environ)
    assert config.online.durability == "disk"
    assert config.server.http_port == 8100
    assert config.server.refresh_seconds == 2.0


def test_tables_of_the_control_plane_are_left_alone(tmp_path: Path) -> None:
    load_config(write(tmp_path, '[[model]]\nname = "m"\n[[dataset]]\nname = "d"\n'), environ={})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[servr]", "unknown section [servr]"),
        ("[server]\nport = 1", "unknown key server.port"),
        ('[server]\nhttp_port = "8000"', "server.http_port is '8000'"),
        ("[server]\nhttp_port = true", "server.http_port is True"),
        ('[online]\ndurability = "maybe"', "online.durability is 'maybe'"),
        ("server = 1", "server is not a section"),
        ("[server", "Expected"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(HeadraceError) as raised:
        load_config(write(tmp_path, text), environ={})
    assert message in raised.value.message
    assert raised.value.code == "invalid_argument"


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("1", True), ("False", False), ("0", False), ("", False)]
)
def test_a_switch_in_the_environment_can_be_off(tmp_path: Path, text: str, expected: bool) -> None:
    config = load_config(write(tmp_path, ""), {"HEADRACE_SERVER_INSECURE_NO_AUTH": text})
    assert config.server.insecure_no_auth is expected


def test_a_switch_that_is_neither_on_nor_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadraceError, match="HEADRACE_SERVER_WRITES is 'off'"):
        load_config(write(tmp_path, ""), {"HEADRACE_SERVER_WRITES": "off"})


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(HeadraceError, match="HEADRACE_SERVER_HTTP_PORT is 'high'"):
        load_config(write(tmp_path, ""), {"HEADRACE_SERVER_HTTP_PORT": "high"})


def test_a_folder_without_settings_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(HeadraceError, match=r"there is no headrace\.toml in"):
        load_config(tmp_path)
