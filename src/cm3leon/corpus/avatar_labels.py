"""An avatar's traits -> what it shows, in words.

Traits are named parts (`hair: "curlyBun"`) and colours (`hairColor: "f29c65"`); the
words follow the order hair, face, things worn, clothes.
"""

import re
from collections.abc import Mapping

from cm3leon.corpus.colours import colour_name
from cm3leon.corpus.naming import with_article, words

Traits = Mapping[str, str]

_HAIR = {
    "long": "long",
    "sideShave": "side-shaved",
    "shortCombover": "short combed-over",
    "curlyHighTop": "curly high-top",
    "bobCut": "bob-cut",
    "curly": "curly",
    "pigtails": "pigtail",
    "curlyBun": "curly bun",
    "buzzcut": "buzz-cut",
    "bobBangs": "bob with bangs",
    "bunUndercut": "undercut bun",
    "fade": "short fade",
    "straightBun": "bun",
    "extraLong": "very long",
    "shortComboverChops": "short combed-over",
    "mohawk": "mohawk",
    "fonze": "slicked-back",
    "mrT": "mohawk strip",
    "dougFunny": "sparse",
    "dannyPhantom": "spiky",
    "full": "full",
    "pixie": "pixie-cut",
    "shortHair": "short",
    "wavyBob": "wavy bob",
    "bowlCutHair": "bowl-cut",
    "curlyBob": "curly bob",
    "straightHair": "straight",
    "braids": "braided",
    "bunHair": "bun",
    "froBun": "afro bun",
    "bangs": "bangs",
    "halfShavedHead": "half-shaved",
    "curlyShortHair": "short curly",
    "slaughter": "messy",
    "ponyTail": "ponytail",
    "stylish": "stylish",
    "elvis": "quiff",
    "classic01": "classic short",
    "classic02": "classic wavy",
}
_BALD = ("bald", "mrClean", "shavedHead", "balndess")
_MOUTH = {
    "smile": "smiling",
    "bigSmile": "with a big smile",
    "frown": "frowning",
    "surprise": "surprised",
    "pacifier": "with a pacifier",
    "smirk": "smirking",
    "lips": "with full lips",
    "surprised": "surprised",
    "laughing": "laughing",
    "nervous": "nervous",
    "sad": "sad",
    "pucker": "puckering",
    "openedSmile": "with an open smile",
    "unimpressed": "unimpressed",
    "gapSmile": "smiling with a tooth gap",
    "openSad": "with a sad open mouth",
    "teethSmile": "with a toothy smile",
    "awkwardSmile": "with an awkward smile",
    "braces": "with braces",
    "kawaii": "with a tiny cute mouth",
}
_EYES = {
    "glasses": "wearing glasses",
    "sunglasses": "wearing sunglasses",
    "wink": "winking",
    "winking": "winking",
    "sleep": "with closed eyes",
    "sleepy": "with closed eyes",
    "starstruck": "with starstruck eyes",
    "angry": "with angry eyes",
    "confused": "with confused eyes",
    "cheery": "with cheery eyes",
}
_STYLES_WITH_EYES = ("personas", "big-smile")
_ACCESSORIES = {
    "catEars": "with cat ears",
    "sailormoonCrown": "with a tiara",
    "clownNose": "with a red clown nose",
    "sleepMask": "with a sleep mask",
    "faceMask": "wearing a face mask",
    "mustache": "with a mustache",
}
_FACIAL_HAIR = {
    "beardMustache": "a beard and mustache",
    "walrus": "a walrus mustache",
    "goatee": "a goatee",
    "shadow": "stubble",
    "soulPatch": "a soul patch",
    "beard": "a beard",
    "scruff": "stubble",
    "pencilThinBeard": "a thin beard",
    "pencilThin": "a thin mustache",
    "horshoe": "a horseshoe mustache",
}
_SHIRT = {
    "checkered": "checkered shirt",
    "collared": "collared shirt",
    "open": "open shirt",
    "golf": "golf shirt",
}

_PEEPS_HEAD = {
    "hijab": "a hijab",
    "turban": "a turban",
    "hat beanie": "a beanie",
    "hat hip": "a hat",
    "bear": "a bear hood",
    "no hair": "a bald head",
    "afro": "an afro",
    "long afro": "a big afro",
    "bangs": "bangs",
    "bun": "a hair bun",
    "buns": "two hair buns",
    "cornrows": "cornrows",
    "dreads": "dreadlocks",
    "flat top": "a flat-top haircut",
    "flat top long": "a tall flat-top haircut",
    "bantu knots": "bantu knots",
    "gray bun": "a gray hair bun",
    "mohawk": "a mohawk",
    "pomp": "a pompadour",
    "twists": "twists",
}
_PEEPS_FACE = {
    "awe": "an awed look",
    "contempt": "a contemptuous look",
    "fear": "a fearful look",
    "rage": "a raging look",
    "old": "an old wrinkled face",
    "monster": "a monster face",
    "cyclops": "one big eye",
    "blank": "a blank face",
    "smile": "a smile",
    "smile big": "a big smile",
    "smile lol": "a laughing face",
    "smile teeth gap": "a gap-toothed smile",
    "eyes closed": "closed eyes",
    "eating happy": "a happy chewing face",
    "angry with fang": "an angry face with a fang",
    "loving grin": "heart eyes and a grin",
    "concerned fear": "a worried look",
    "very angry": "a very angry face",
}


def label_of(style: str, traits: Traits) -> str:
    """What an avatar shows.

    >>> label_of("personas", {"hair": "long", "hairColor": "#dc2828"})
    'person with long red hair'
    """
    parts = _peep(traits) if style == "open-peeps" else _person(style, traits)
    return "person " + " ".join(part for part in parts if part)


def _person(style: str, traits: Traits) -> list[str]:
    eyes = traits.get("eyes", "") if style in _STYLES_WITH_EYES else ""
    accessory = traits.get("accessories", "")
    return [
        _hair(traits),
        _MOUTH.get(traits.get("mouth", ""), ""),
        _EYES.get(eyes, ""),
        "wearing glasses" if traits.get("glasses") else "",
        accessory and _ACCESSORIES.get(accessory, "wearing " + accessory),
        _facial_hair(traits),
        "with earrings" if traits.get("earrings") else "",
        _clothes(traits),
    ]


def _hair(traits: Traits) -> str:
    hair, colour = traits.get("hair", ""), _colour(traits, "hairColor")
    if not hair:
        return ""
    if hair in _BALD:
        return "who is bald"
    if hair == "balding":
        return "who is balding"
    if hair in ("cap", "beanie", "turban"):
        return f"wearing a {colour} {hair}" if colour else f"wearing a {hair}"
    kind = _HAIR.get(hair, words(hair).lower())
    return f"with {kind} {colour} hair" if colour else f"with {kind} hair"


def _facial_hair(traits: Traits) -> str:
    kind = traits.get("facialHair") or traits.get("mustache")
    return "with " + _FACIAL_HAIR.get(kind, "a mustache") if kind else ""


def _clothes(traits: Traits) -> str:
    colours = (
        _colour(traits, f"{part}Color") for part in ("clothing", "shirt", "body")
    )
    colour = next((colour for colour in colours if colour), "")
    shirt = _SHIRT.get(traits.get("body") or traits.get("shirt", ""), "shirt")
    return f"in a {colour} {shirt}" if colour else ""


def _peep(traits: Traits) -> list[str]:
    head = _unnumbered(traits.get("head", ""))
    face = _unnumbered(traits.get("face", ""))
    accessory, clothes = traits.get("accessories", ""), _colour(traits, "clothingColor")
    return [
        f"with {_PEEPS_HEAD.get(head, f'{head} hair')}",
        f"and {_PEEPS_FACE.get(face) or with_article(f'{face} look')},",
        _peeps_beard(traits.get("facialHair", "")),
        accessory and "wearing " + _peeps_accessory(accessory),
        "wearing a face mask" if traits.get("mask") else "",
        f"in {clothes} clothes" if clothes else "",
    ]


def _peeps_beard(kind: str) -> str:
    if not kind:
        return ""
    return "with a " + next(
        (name for name in ("goatee", "moustache") if name in kind), "beard"
    )


def _peeps_accessory(kind: str) -> str:
    if "sun" in kind:
        return "sunglasses"
    return "an eye patch" if "patch" in kind else "glasses"


def _colour(traits: Traits, name: str) -> str:
    value = traits.get(name, "")
    return colour_name(value) if value.startswith("#") else ""


def _unnumbered(part: str) -> str:
    return words(re.sub(r"\d+$", "", part)).lower()
