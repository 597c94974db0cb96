"""Every source of the corpus, in the order in which their pictures are taken.

The order matters: of two near-duplicates the earlier one stays. Sources that ask for
attribution only come first, so that adding the others changes nothing about them.
The numbers of pictures (all, and in the train split) are those of the default build,
which the shipped model was trained on; a build that arrives at others says so.
"""

import difflib

from cm3leon.corpus.avatars import CORE, draw_avatars
from cm3leon.corpus.clipart import DRAWINGS, draw_clipart
from cm3leon.corpus.drawings import Source
from cm3leon.corpus.emoji import draw_rendered, draw_set
from cm3leon.corpus.emoji_names import PACKAGES as EMOJI_NAMES
from cm3leon.corpus.endless_sky import draw_landscapes, draw_planets
from cm3leon.corpus.gcompris import draw_gcompris
from cm3leon.corpus.icons import ICON_PACKAGES, draw_icons
from cm3leon.corpus.openmoji import PACKAGE as OPENMOJI
from cm3leon.corpus.openmoji import draw_colour, draw_line_art
from cm3leon.corpus.packages import PACKAGES
from cm3leon.corpus.share_alike import draw_art4apps, draw_costumes, draw_stamps
from cm3leon.errors import ConfigError

# name, style, licence, author, pictures, of these in train
_EMOJI = (
    ("fluent-emoji", "glossy 3d-style vector emoji", "MIT", "Microsoft", 3153, 2961),
    ("noto", "Noto-style flat emoji", "Apache-2.0", "Google", 3718, 3504),
    ("twemoji", "flat emoji", "CC-BY-4.0", "Twitter and contributors", 3936, 3730),
    ("fluent-emoji-flat", "flat colour emoji", "MIT", "Microsoft", 3139, 2937),
    ("emojione", "shaded emoji", "CC-BY-4.0", "EmojiOne", 1776, 1658),
    ("noto-v1", "old-style emoji", "Apache-2.0", "Google", 1931, 1826),
    ("fxemoji", "simple flat emoji", "Apache-2.0", "Mozilla", 1027, 960),
    (
        "streamline-emojis",
        "thick-outline cartoon emoji",
        "CC-BY-4.0",
        "Streamline",
        781,
        678,
    ),
    (
        "fluent-emoji-high-contrast",
        "black and white pictogram",
        "MIT",
        "Microsoft",
        1572,
        1469,
    ),
)
_ICONS = (
    (
        "streamline-ultimate-color",
        "outlined colour icon",
        "CC-BY-4.0",
        "Streamline",
        731,
        692,
    ),
    (
        "streamline-freehand-color",
        "hand-drawn two-colour sketch icon",
        "CC-BY-4.0",
        "Streamline",
        729,
        704,
    ),
    ("flat-color-icons", "flat colour icon", "MIT", "Icons8", 311, 297),
    ("fluent-color", "gradient colour icon", "MIT", "Microsoft", 195, 186),
    (
        "icon-park",
        "blue and black outlined icon",
        "Apache-2.0",
        "ByteDance",
        1863,
        1793,
    ),
    (
        "game-icons",
        "black silhouette icon",
        "CC-BY-3.0",
        "game-icons.net contributors",
        4039,
        3867,
    ),
    ("meteocons", "weather icon", "MIT", "Bas Milius", 145, 129),
)
_AVATARS = (
    ("personas", "flat avatar", "CC-BY-4.0", "Draftbit", 698, 673),
    ("open-peeps", "hand-drawn avatar", "CC0-1.0", "Pablo Stanley", 695, 669),
    ("micah", "outlined avatar", "CC-BY-4.0", "Micah Lanier", 699, 664),
    ("big-smile", "cartoon avatar", "CC-BY-4.0", "Ashley Seo", 499, 479),
    ("miniavs", "simple flat avatar", "CC-BY-4.0", "Webpixels", 294, 286),
)

_ATTRIBUTION = (
    Source(
        name="gcompris",
        package="gcompris-qt-data",
        style="photo",
        licence="per file",
        author="GCompris authors",
        pictures=53,
        train=52,
        draw=draw_gcompris,
    ),
    Source(
        name="endless-sky-land",
        package="endless-sky-data",
        style="landscape photo",
        licence="per file",
        author="various",
        pictures=370,
        train=362,
        draw=draw_landscapes,
    ),
    *(
        Source(
            name=name,
            package=f"@iconify-json/{name}",
            style=style,
            licence=licence,
            author=author,
            pictures=pictures,
            train=train,
            names=EMOJI_NAMES,
            draw=draw_set,
        )
        for name, style, licence, author, pictures, train in _EMOJI
    ),
    Source(
        name="fluent-emoji-3d",
        package="@lobehub/fluent-emoji-3d",
        style="rendered 3d emoji",
        licence="MIT",
        author="Microsoft",
        pictures=3309,
        train=3100,
        names=EMOJI_NAMES,
        draw=draw_rendered,
    ),
    *(
        Source(
            name=name,
            package=f"@iconify-json/{name}",
            style=style,
            licence=licence,
            author=author,
            pictures=pictures,
            train=train,
            draw=draw_icons,
        )
        for name, style, licence, author, pictures, train in _ICONS
    ),
    *(
        Source(
            name=f"dicebear-{name}",
            package=f"@dicebear/{name}",
            style=style,
            licence=licence,
            author=author,
            pictures=pictures,
            train=train,
            names=(CORE,),
            draw=draw_avatars,
        )
        for name, style, licence, author, pictures, train in _AVATARS
    ),
    Source(
        name="openclipart",
        package="openclipart-png",
        style="clip art",
        licence="CC-PDDC (public domain dedication)",
        author="Open Clip Art Library contributors",
        pictures=3305,
        train=3103,
        names=(DRAWINGS, *EMOJI_NAMES, *ICON_PACKAGES),
        draw=draw_clipart,
    ),
)
_SHARE_ALIKE = (
    Source(
        name="openmoji",
        package="@iconify-json/openmoji",
        style="outlined colour emoji",
        licence="CC-BY-SA-4.0",
        author="OpenMoji",
        share_alike=True,
        names=(OPENMOJI, *EMOJI_NAMES),
        draw=draw_colour,
    ),
    Source(
        name="openmoji-black",
        package=OPENMOJI,
        style="black and white line drawing",
        licence="CC-BY-SA-4.0",
        author="OpenMoji",
        share_alike=True,
        names=EMOJI_NAMES,
        draw=draw_line_art,
    ),
    Source(
        name="emojione-v1",
        package="@iconify-json/emojione-v1",
        style="classic emoji",
        licence="CC-BY-SA-4.0",
        author="EmojiOne",
        share_alike=True,
        names=EMOJI_NAMES,
        draw=draw_set,
    ),
    Source(
        name="endless-sky-planet",
        package="endless-sky-data",
        style="realistic space picture",
        licence="per file",
        author="Endless Sky contributors",
        share_alike=True,
        draw=draw_planets,
    ),
    Source(
        name="tuxpaint-stamps",
        package="tuxpaint-stamps-default",
        style="cut-out photo on white",
        licence="GPL-2.0 (Debian copyright: Files *)",
        author="Tux Paint stamps contributors",
        share_alike=True,
        draw=draw_stamps,
    ),
    Source(
        name="scratch-media",
        package="scratch",
        style="cartoon drawing",
        licence="CC-BY-SA-3.0",
        author="MIT Scratch team",
        share_alike=True,
        draw=draw_costumes,
    ),
    Source(
        name="art4apps",
        package="pysiogame",
        style="hand-drawn cartoon",
        licence="CC-BY-SA-3.0 (art4apps; package credits: CC BY-SA)",
        author="Art4Apps by Smart4Kids",
        share_alike=True,
        draw=draw_art4apps,
    ),
)
SOURCES = (*_ATTRIBUTION, *_SHARE_ALIKE)


def choose_sources(
    only: str | None = None, *, share_alike: bool = False
) -> list[Source]:
    """The sources to build from, in their order.

    Args:
        only: source names with commas between, `npm` for all that need no Debian
            package; `None` for all.
        share_alike: add those that ask for more than attribution.

    Raises:
        ConfigError: a name is not known, or asks for more than attribution.
    """
    allowed = [source for source in SOURCES if share_alike or not source.share_alike]
    if only is None:
        return allowed
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    names = {source.name: source for source in SOURCES}
    for name in wanted:
        if name != "npm" and name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else "see cm3leon data sources"
            raise ConfigError(f"there is no source {name}; {hint}")
        if name in names and names[name] not in allowed:
            raise ConfigError(
                f"{name} is under {names[name].licence}; add --share-alike to use it"
            )
    chosen = [
        source
        for source in allowed
        if source.name in wanted or ("npm" in wanted and _is_npm(source))
    ]
    if not chosen:
        raise ConfigError(f"--only {only!r} names no source; see cm3leon data sources")
    return chosen


def _is_npm(source: Source) -> bool:
    return all(PACKAGES[name].registry == "npm" for name in source.packages)
