"""What the sources read: members of npm archives, contents of Debian packages."""

import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cm3leon.corpus.fetch import Archive
from cm3leon.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class Archives:
    """The archives at hand by package name, and a folder for what is unpacked."""

    at_hand: Mapping[str, Archive]
    scratch: Path

    def json(self, package: str, member: str, default: Any = None) -> Any:
        """A JSON file of an npm package, `default` if there is no such file."""
        content = self.member(package, member)
        return default if content is None else json.loads(content)

    def member(self, package: str, member: str) -> bytes | None:
        """A file of an npm package, `None` if there is no such file."""
        with self._tar(package) as tar:
            try:
                file = tar.extractfile(f"package/{member}")
            except KeyError:
                return None
            return None if file is None else file.read()

    def members(self, package: str, suffix: str) -> Iterator[tuple[str, bytes]]:
        """Names and contents of an npm package's files, in the archive's order."""
        with self._tar(package) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isfile() else None
                if file is not None and member.name.endswith(suffix):
                    yield member.name.removeprefix("package/"), file.read()

    def extract(self, package: str, folder: Path) -> None:
        """Unpack an npm package into `folder`."""
        with self._tar(package) as tar:
            for member in tar:
                member.name = member.name.removeprefix("package/")
                tar.extract(member, folder, filter="data")

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder that is gone afterwards."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            yield Path(folder)

    @contextmanager
    def unpacked(self, package: str) -> Iterator[Path]:
        """The contents of a Debian package, in a folder that is gone afterwards.

        Raises:
            DataError: the archive cannot be unpacked.
        """
        archive = self.at_hand[package].path
        with self.folder() as folder:
            done = subprocess.run(
                ["dpkg-deb", "-x", archive, folder],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise DataError(f"{archive} cannot be unpacked: {done.stderr.strip()}")
            yield folder

    def _tar(self, package: str) -> tarfile.TarFile:
        archive = self.at_hand[package].path
        try:
            return tarfile.open(archive)
        except tarfile.TarError as error:
            raise DataError(f"{archive} is not an npm archive: {error}") from error
