import dataclasses
import hashlib
import logging

import pytest

from cm3leon.corpus.fetch import fetch, fetch_all, need_program
from cm3leon.corpus.packages import PACKAGES
from cm3leon.errors import ConfigError, DataError

NPM, DEB = PACKAGES["emojilib"], PACKAGES["openclipart-png"]


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))


def program(tmp_path, monkeypatch, name, script):
    """A program that stands for a registry's client."""
    folder = tmp_path / "programs"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("package", "name"), [(NPM, "npm"), (DEB, "apt-get")], ids=["npm", "deb"]
)
def test_a_missing_program_is_named_with_a_way_out(
    nothing_installed, tmp_path, package, name
):
    with pytest.raises(ConfigError, match=f"{name} is not installed") as error:
        fetch_all([package], tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", ["npm", "node", "apt-get", "dpkg-deb"])
def test_every_program_has_a_way_out(nothing_installed, tmp_path, name):
    with pytest.raises(ConfigError, match=r"(install|--only|put)"):
        need_program(name, tmp_path)


def test_no_program_is_needed_for_what_is_there(nothing_installed, tmp_path):
    content = b"an archive"
    package = dataclasses.replace(NPM, sha256=hashlib.sha256(content).hexdigest())
    (tmp_path / package.file).write_bytes(content)
    archive = fetch_all([package], tmp_path)[package.name]
    assert archive.path == tmp_path / package.file


def test_a_fetched_archive_is_kept_under_its_own_name(tmp_path, monkeypatch):
    program(tmp_path, monkeypatch, "npm", f"printf hello > {NPM.file}")
    package = dataclasses.replace(NPM, sha256=hashlib.sha256(b"hello").hexdigest())
    cache = tmp_path / "cache"
    fetch_all([package], cache)
    assert [path.name for path in cache.iterdir()] == [NPM.file]


def test_what_the_client_says_is_passed_on(tmp_path, monkeypatch):
    program(tmp_path, monkeypatch, "npm", "echo 'npm error 404 gone' >&2; exit 1")
    with pytest.raises(DataError, match=r"emojilib@4\.0\.3 .*npm error 404 gone"):
        fetch(NPM, tmp_path)


def test_a_package_debian_has_moved_is_taken_with_a_warning(
    tmp_path, monkeypatch, caplog
):
    name = "openclipart-png_1%3a0.19-1_all.deb"
    script = f'case "$*" in *=*) exit 100;; esac; printf hello > {name}'
    program(tmp_path, monkeypatch, "apt-get", script)
    with caplog.at_level(logging.WARNING):
        archive = fetch(DEB, tmp_path)
    assert archive.version == "1:0.19-1"
    assert archive.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert "1:0.19-1 stands in for the pinned 1:0.18+dfsg-19" in caplog.text
