"""Which licences ask for attribution only."""

import re

_FREE = ("MIT", "Apache-2.0", "CC0", "CC-PDDC", "public-domain", "PD")
_RESTRICTED_CC_BY = re.compile(r"CC-BY-(SA|NC|ND)")


def is_attribution(licence: str) -> bool:
    """Whether a picture may be used by naming its author, and nothing more is asked.

    >>> is_attribution("CC-BY-4.0"), is_attribution("CC-BY-SA-4.0")
    (True, False)
    """
    if licence.startswith("CC-BY"):
        return not _RESTRICTED_CC_BY.match(licence)
    return licence.startswith(_FREE)
