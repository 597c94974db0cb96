"""Words about pictures: readable names, concepts, articles."""

import re
import unicodedata


def word_set(text: str) -> frozenset[str]:
    """The words of a text that is a list of words."""
    return frozenset(text.split())


_TONE = r"(light|medium-light|medium|medium-dark|dark) skin tone"
_TONES = re.compile(rf"([:,]| with)?\s*{_TONE}((,| and) {_TONE})?")
_SMALL_WORDS = re.compile(r"\b(a|an|the|of|with|in|on|and)\b")
_GENDER = re.compile(r"\b(man|woman|men|women|person|people|boy|girl|male|female)\b")

_NO_ARTICLE = word_set(
    "a an the two three four five no some see hear speak yin rock mount statue"
)
_UNCOUNTED = word_set(
    """water rice bread sushi hair fire fog snow rain money people women men children
    cheese meat bacon butter salt honey tennis polish bath tea milk juice soup ice
    spaghetti popcorn corn garlic baseball football golf hockey music yoga space one
    outer"""
)
_SCENERY = re.compile(
    r"^(badlands|sand dunes|grassy|green hills|mountains|outer space)"
)
_TAIL = re.compile(r"\b(of|with|in|on|for|at|and|from|without|under|behind|over)\b.*")
_PLURAL = re.compile(r"(?<![su])s$")
_SINGULAR_IN_S = re.compile(
    "("
    "bus|glass|dress|cactus|gas|lens|cross|compass|octopus|walrus|tennis|pass|chess|"
    "virus|campus|minus|plus|kiss|iris|hippopotamus|abacus|process|address|access|"
    "business|status|grass|press|class|mess|princess|mattress|fortress|harness|news"
    ")$"
)
_VOWEL_SOUND = re.compile(r"^([aeiou](?!ne\b|ni[^n]|s[eiu]|uro)|hour|honest)")


def words(text: str) -> str:
    """A file or icon name as words.

    >>> words("openBook_red-2")
    'open Book red 2'
    """
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    text = re.sub(r"[-_/]+", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def slug(text: str) -> str:
    """Small letters and digits joined by hyphens.

    >>> slug("Crème brûlée, 2")
    'creme-brulee-2'
    """
    ascii_only = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore")
    return re.sub(r"[^a-z0-9]+", "-", ascii_only.decode()).strip("-")


def concept_of(label: str) -> str:
    """What a label names, whatever its skin tone, gender and order of words.

    Splits are drawn by concept, so `man biking: dark skin tone` and `woman biking`
    must have one concept, or one would give the other away.

    >>> concept_of("man biking with dark skin tone"), concept_of("woman biking")
    ('biking', 'biking')
    >>> concept_of("the house of cards")
    'cards-house'
    """
    text = _SMALL_WORDS.sub(" ", _TONES.sub("", label.lower()))
    neutral = _GENDER.sub(" ", text)
    if re.search("[a-z]", neutral):
        text = neutral
    if re.search("[a-z]", text):
        text = re.sub(r"\d+", " ", text)
    parts = sorted(part for part in slug(text).split("-") if part)
    return "-".join(parts) or slug(label)


def with_article(label: str) -> str:
    """A label with `a`, `an`, `the` or nothing in front.

    >>> [with_article(label) for label in ("owl", "two owls", "flag of Peru", "rice")]
    ['an owl', 'two owls', 'the flag of Peru', 'rice']
    """
    label = label.strip()
    if label.startswith("flag of "):
        return "the " + label
    if label.split(" ")[0].lower() in _NO_ARTICLE or label[:1].isdigit():
        return label
    if _SCENERY.match(label):
        return label
    head = _TAIL.sub("", label).strip().split(" ")[-1].lower()
    plural = _PLURAL.search(head) and not _SINGULAR_IN_S.search(head)
    if plural or head in _UNCOUNTED:
        return label
    return ("an " if _VOWEL_SOUND.match(label.lower()) else "a ") + label
