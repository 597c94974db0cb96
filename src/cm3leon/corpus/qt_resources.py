"""Files inside a Qt resource bundle (.rcc, format versions 1 to 3).

The header gives the version and the places of three tables: a tree of nodes (a folder:
count and first child; a file: where its data are), the data (length, then bytes, which
may be zlib after four bytes of length), and the names (length, hash, UTF-16).
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from cm3leon.errors import DataError

_ZLIB, _FOLDER, _ZSTD = 1, 2, 4


def read_bundle(path: Path) -> dict[str, bytes]:
    """Contents by name, `/folder/file`; files packed with Zstandard are left out.

    Raises:
        DataError: the file is not a bundle.
    """
    bundle = path.read_bytes()
    if bundle[:4] != b"qres":
        raise DataError(f"{path} is not a Qt resource bundle")
    try:
        return dict(_walk(bundle, 0, ""))
    except (struct.error, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from error


def _walk(bundle: bytes, node: int, above: str) -> Iterator[tuple[str, bytes]]:
    version, tree, data, names = struct.unpack_from(">4I", bundle, 4)
    place = tree + node * (14 if version < 2 else 22)
    name, flags = struct.unpack_from(">IH", bundle, place)
    path = f"{above}/{_name(bundle, names + name)}" if node else ""
    if flags & _FOLDER:
        count, first = struct.unpack_from(">II", bundle, place + 6)
        for child in range(first, first + count):
            yield from _walk(bundle, child, path)
    elif not flags & _ZSTD:
        (start,) = struct.unpack_from(">I", bundle, place + 10)
        content = _sized(bundle, data + start)
        yield path, zlib.decompress(content[4:]) if flags & _ZLIB else content


def _name(bundle: bytes, place: int) -> str:
    (length,) = struct.unpack_from(">H", bundle, place)
    return bundle[place + 6 : place + 6 + 2 * length].decode("utf-16-be")


def _sized(bundle: bytes, place: int) -> bytes:
    (length,) = struct.unpack_from(">I", bundle, place)
    return bundle[place + 4 : place + 4 + length]
