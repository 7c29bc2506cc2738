"""What the embedded server tells somebody who sits at its terminal, and nobody else."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from fixtures.server import EmbeddedServer

pytestmark = pytest.mark.integration


def read_until(terminal: int, pattern: str) -> re.Match[str]:
    """Read what is written to the terminal until it says what is waited for."""
    said, deadline = b"", time.monotonic() + 180
    while select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0]:
        said += os.read(terminal, 4096)
        if found := re.search(pattern, said.decode(errors="replace")):
            return found
    pytest.fail(f"the terminal says only:\n{said.decode(errors='replace')}")


def test_the_terminal_shows_the_key_once_and_a_link_that_signs_in(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    program = Path(sys.executable).parent / "nextrapolate-server"
    process = subprocess.Popen(
        [program, "--port", "0", "--data-dir", tmp_path / "data"],
        cwd=tmp_path,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")},
    )
    os.close(theirs)
    try:
        told = read_until(
            ours,
            r"(?s)(nx_local_\w+) \(shown this once\).*export NEXTRAPOLATE_URL=(\S+)"
            r".*pages: (\S+)(/login\?invitation=\S+) ",
        )
        key, exported, url, path = told.groups()
        assert exported == url
        assert key == (tmp_path / "data" / "api_key").read_text().strip()
        accept = {"Accept": "text/html"}
        with httpx.Client(base_url=url, headers=accept, trust_env=False, timeout=60) as browser:
            (invitation,) = re.findall(r'name="invitation" value="([^"]+)"', browser.get(path).text)
            assert browser.post("/login", data={"invitation": invitation}).headers["Location"] == "/"
            assert "There are no jobs yet" in browser.get("/").text
            assert browser.post("/login", data={"invitation": invitation}).status_code == 401
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(90)
        os.close(ours)


def test_a_log_holds_no_way_in(embedded_server: EmbeddedServer) -> None:
    said = embedded_server.output.read_text()
    assert "invitation" not in said
    assert embedded_server.api_key not in said
