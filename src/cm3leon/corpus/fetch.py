"""Pinned packages -> archives in a folder, checked by their checksums.

Archives come through the registries' own clients, `npm pack` and `apt-get download`;
nothing is installed. An archive that is in the folder already is not fetched again.
"""

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cm3leon import fingerprints
from cm3leon.corpus.packages import Package
from cm3leon.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_WAYS_OUT = {
    "npm": "install Node.js, or put the archives into {cache}",
    "node": "install Node.js, or leave the avatars out with --only",
    "apt-get": "take the npm part with --only npm, or put the archives into {cache}",
    "dpkg-deb": "take the npm part with --only npm",
}


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive at hand; `version` differs from the pinned one only for Debian's."""

    package: Package
    path: Path
    version: str
    sha256: str


def need_program(program: str, cache: Path) -> None:
    """Check that a program is there.

    Raises:
        ConfigError: it is not.
    """
    if shutil.which(program) is None:
        way = _WAYS_OUT[program].format(cache=cache)
        raise ConfigError(f"{program} is not installed and this build needs it; {way}")


def fetch_all(packages: Iterable[Package], cache: Path) -> dict[str, Archive]:
    """The archives of `packages` by package name, all in the folder `cache`.

    Raises:
        ConfigError: a program that is needed is not installed.
        DataError: a checksum differs, or the registry does not give the archive.
    """
    packages = list(packages)
    cache.mkdir(parents=True, exist_ok=True)
    missing = {package.registry for package in packages if not _found(package, cache)}
    if "npm" in missing:
        need_program("npm", cache)
    if "deb" in missing:
        need_program("apt-get", cache)
    return {package.name: fetch(package, cache) for package in packages}


def fetch(package: Package, cache: Path) -> Archive:
    """One archive, from the folder or else from its registry.

    Raises:
        DataError: the checksum differs, or the registry does not give the archive.
    """
    path = _found(package, cache) or _download(package, cache)
    sha256 = fingerprints.of_file(path)
    if path.name != package.file:
        version = path.name.split("_")[1].replace("%3a", ":")
        logger.warning(
            "%s %s stands in for the pinned %s; its pictures may differ",
            package.name,
            version,
            package.version,
        )
        return Archive(package=package, path=path, version=version, sha256=sha256)
    if sha256 != package.sha256:
        raise DataError(
            f"{path} has SHA-256 {sha256}, pinned is {package.sha256}; "
            "delete the file and build again"
        )
    return Archive(package=package, path=path, version=package.version, sha256=sha256)


def _found(package: Package, cache: Path) -> Path | None:
    exact = cache / package.file
    if exact.is_file():
        return exact
    if package.registry == "deb":
        return max(cache.glob(f"{package.name}_*.deb"), default=None)
    return None


def _download(package: Package, cache: Path) -> Path:
    """Fetch into a temporary folder first: a killed fetch leaves no half file."""
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
        if package.registry == "npm":
            error = _run(["npm", "pack", "--silent", package.address], folder)
        else:
            error = _run(["apt-get", "-q", "download", package.address], folder)
            if error is not None:  # a point release has moved the version
                error = _run(["apt-get", "-q", "download", package.name], folder)
        arrived = next((p for p in Path(folder).iterdir() if p.is_file()), None)
        if error is not None or arrived is None:
            hint = "" if package.registry == "npm" else ", run apt-get update"
            raise DataError(
                f"{package.address} could not be fetched ({error or 'no file came'}); "
                f"check the network{hint}, or put {package.file} into {cache}"
            )
        return arrived.replace(cache / arrived.name)


def _run(command: list[str], folder: str) -> str | None:
    """Run a command; the last line of its complaint if it fails."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    complaint = (done.stderr or done.stdout).strip().splitlines()
    return complaint[-1] if complaint else f"exit code {done.returncode}"
