"""Icon sets in the Iconify format: JSON with the SVG body of each icon."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cm3leon.corpus.archives import Archives


@dataclass(frozen=True, kw_only=True)
class IconSet:
    """One set.

    Args:
        icons: name -> the icon's `body` and, where they differ, its view box.
        view: the view box of icons that have none of their own.
        characters: code points in hexadecimal -> icon.
        categories: icon -> the first category that lists it.
    """

    icons: Mapping[str, Mapping[str, Any]]
    view: Mapping[str, int | float]
    characters: Mapping[str, str]
    categories: Mapping[str, str]

    def svg(self, name: str) -> str:
        """An icon as a square SVG in black, its own proportions kept."""
        icon = self.icons[name]
        left, top, width, height = (
            icon.get(key, self.view[key]) for key in ("left", "top", "width", "height")
        )
        side = max(width, height)
        left -= (side - width) / 2
        top -= (side - height) / 2
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" '
            'xmlns:xlink="http://www.w3.org/1999/xlink" color="#000000" '
            f'width="{side}" height="{side}" viewBox="{left} {top} {side} {side}">'
            f"{icon['body']}</svg>"
        )


def read_icons(archives: Archives, package: str) -> IconSet:
    """The icon set of an `@iconify-json` package."""
    icons = archives.json(package, "icons.json")
    metadata = archives.json(package, "metadata.json", default={})
    categories: dict[str, str] = {}
    for category, names in (metadata.get("categories") or {}).items():
        for name in names:
            categories.setdefault(name, category)
    default = {"left": 0, "top": 0, "width": 16, "height": 16}
    return IconSet(
        icons=icons["icons"],
        view={key: icons.get(key, value) for key, value in default.items()},
        characters=archives.json(package, "chars.json", default={}),
        categories=categories,
    )
