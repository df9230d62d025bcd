"""redis-server's command line, quirks included."""

from __future__ import annotations

from pathlib import Path

import pytest

from zeekdb.cli import main, run_server, server_main
from zeekdb.config.command_line import Refused, configured, split_command_line
from zeekdb.config.config import Config


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--port", "7000", "--save", ""], 'port "7000"\nsave ""'),
        (["--port 7000", "--hz", "5"], 'port 7000\nhz "5"'),
        (["--save", "--port", "1"], 'save ""\nport "1"'),
        (["--port", "1", "--save"], 'port "1"\nsave ""'),
        (["--save", "10", "1", "--save", "20", "2"], 'save "10" "1"\nsave "20" "2"'),
        (["--requirepass", "--secret"], 'requirepass "--secret"'),
        (["--bind", "127.0.0.1", "::1"], 'bind "127.0.0.1" "::1"'),
    ],
)
def test_directives(words: list[str], options: str) -> None:
    assert split_command_line(words) == ("", False, options)


def test_file_and_standard_input() -> None:
    assert split_command_line(["a.conf", "--port", "1", "-"]) == ("a.conf", True, 'port "1"')
    assert split_command_line(["-", "--port", "1"]) == ("", True, 'port "1"')
    assert split_command_line(["--appendfilename", "-", "--port", "1"])[1] is False


def test_precedence(tmp_path: Path) -> None:
    path = tmp_path / "z.conf"
    path.write_text("port 1\ntimeout 1\nhz 11\n")
    config = configured([str(path), "--port", "3", "-"], lambda: "port 2\ntimeout 2\n")
    assert (config.port, config.timeout, config.hz) == (3, 2, 11)


def test_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Refused, match="test-memory"):
        configured(["--test-memory", "100"])
    with pytest.raises(Refused, match="Sentinel"):
        configured(["--sentinel"])
    with pytest.raises(Refused, match="can't open config file"):
        configured(["/no/such/file.conf"])
    assert server_main(["--port", "abc"]) == 1
    shown = capsys.readouterr().err
    assert "FATAL CONFIG FILE ERROR" in shown
    assert "at line 2\n>>> 'port \"abc\"'\nargument couldn't be parsed into an integer" in shown


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert main(["serve", "--help"]) == 0
    assert main(["--version"]) == 0
    assert server_main(["--version"]) == 0
    assert capsys.readouterr().out.count("Redis server v=7.2") == 2
    assert main(["dance"]) == 2
    assert "there is no command 'dance'" in capsys.readouterr().err


def test_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    served: list[Config] = []

    def serve(config: Config) -> int:
        served.append(config)
        return 7

    words = ["--dir", "data", "--logfile", "z.log", "--pidfile", "z.pid", "--always-show-logo", "yes"]
    assert run_server(words, "zeekdb-server", serve) == 7
    config = served[0]
    assert config.dir == str(tmp_path / "data")
    pid = (tmp_path / "data" / "z.pid").read_text().strip()
    text = (tmp_path / "data" / "z.log").read_text()
    assert f" PID: {pid}" in text
    assert text.index(f" PID: {pid}") < text.index("Server initialized")
    config.set({"loglevel": "debug"})
    config.enable_protected_configs = "yes"
    with pytest.raises(Exception, match="No such file or directory"):
        config.set({"dir": "nowhere"})
    assert config.dir == str(tmp_path / "data")
