"""How to draw, checked once, here."""

import math
import secrets
from dataclasses import dataclass, fields, replace
from typing import Literal

from cm3leon.errors import ConfigError

SEEDS = 2**31  # a drawn seed is below this, so that it is easily retyped
WIDEST = 256  # window; each place holds a probability for every code


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How the next id is drawn: guidance, temperature, top-k, top-p, in this order.

    Raises:
        ConfigError: a value is out of its range; the message names it.
    """

    temperature: float = 1.0  # 0 is greedy: always the likeliest id
    top_p: float = 1.0  # share of the probability kept; 1 keeps all
    top_k: int | None = None  # ids kept; None keeps all
    guidance_scale: float = 3.0  # pictures only; 1 is none. Yu et al. 2023, §3.1
    guidance_from: float = 0.0  # share of a picture's codes before which there is none
    guidance_until: float = 1.0  # and from which on; the paper guides all of them
    image_guidance_scale: float | None = None  # of the pictures before it, in
    # editing; None: 1, with two lanes only. Yu et al. 2023, §4.1: 1.5, words 7.5
    contrast_k: int | None = None  # CD-K, pictures only; None: off. §3.1, eq. 3
    contrast_alpha: float = 0.5  # share of the k-th probability that is plausible
    strong_temperature: float = 1.0  # of the lane with the words, in CD-K
    weak_temperature: float = 1.0  # of the lane without, in CD-K
    unconditional: Literal["mask", "absent", "alone"] = "mask"  # lane; see `prompt`
    window: int = 1  # ids read in a pass, pictures only; 1: one by one. See `jacobi`
    neighbours: int = 0  # documents retrieved for a picture. Yu et al. 2023, §2.1
    repetition_penalty: float = 1.0  # of words said already; 1 is none
    max_text: int = 64  # most text ids of an answer
    seed: int | None = None  # None: a new one for every call

    def __post_init__(self) -> None:
        self._check_types()
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(
                f"temperature is {self.temperature}, below 0 or not finite; 0 takes "
                "the likeliest id, 1 draws as the model learnt"
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError(
                f"top_p is {self.top_p}, outside 0 < top_p <= 1; 1 keeps every id"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(
                f"top_k is {self.top_k}, below 1; leave it out to keep every id"
            )
        if not 0 <= self.guidance_scale < math.inf:
            raise ConfigError(
                f"guidance_scale is {self.guidance_scale}, below 0 or not finite; 1 is "
                "no guidance, 3 is usual"
            )
        if not 0 <= self.guidance_from < self.guidance_until <= 1:
            raise ConfigError(
                f"guidance_from is {self.guidance_from} and guidance_until "
                f"{self.guidance_until}; 0 <= from < until <= 1, and 0 and 1 guide all "
                "of the picture"
            )
        if self.image_guidance_scale is not None:
            if not 0 <= self.image_guidance_scale < math.inf:
                raise ConfigError(
                    f"image_guidance_scale is {self.image_guidance_scale}, below 0 or "
                    "not finite; 1 is no guidance, 1.5 is usual"
                )
            if self.contrast_k is not None:
                raise ConfigError(
                    "image_guidance_scale and contrast_k are two ways to draw; give one"
                )
        if self.contrast_k is not None and self.contrast_k < 1:
            raise ConfigError(
                f"contrast_k is {self.contrast_k}, below 1; leave it out for no "
                "contrast"
            )
        if self.contrast_k is not None and self.guidance_scale == 0:
            raise ConfigError(
                "guidance_scale is 0, so contrast_k has nothing to contrast; 1 is no "
                "guidance"
            )
        if not 0 < self.contrast_alpha <= 1:
            raise ConfigError(
                f"contrast_alpha is {self.contrast_alpha}, outside (0, 1]"
            )
        for name in ("strong_temperature", "weak_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, not above 0 and finite"
                )
        if not 0 < self.repetition_penalty < math.inf:
            raise ConfigError(
                f"repetition_penalty is {self.repetition_penalty}, not above 0 and "
                "finite; 1 is none, 1.2 is usual"
            )
        if not 1 <= self.window <= WIDEST:
            raise ConfigError(
                f"window is {self.window}, outside 1 to {WIDEST}; 1 draws one code at "
                "a time"
            )
        if self.neighbours < 0:
            raise ConfigError(f"neighbours is {self.neighbours}, below 0; 0 is none")
        if self.max_text < 1:
            raise ConfigError(f"max_text is {self.max_text}, below 1; 64 is usual")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigError(
                f"seed is {self.seed}, outside 0 <= seed < 2**63; leave it out for a "
                "new one"
            )

    def _check_types(self) -> None:
        if self.unconditional not in ("mask", "absent", "alone"):
            raise ConfigError(
                f"unconditional is {self.unconditional!r}; it can be 'mask' (a mask "
                "for the caption), 'absent' (after neighbours: no caption) or 'alone' "
                "(a mask and no neighbours)"
            )
        whole = ("top_k", "contrast_k", "window", "max_text", "neighbours", "seed")
        for name in whole:
            value = getattr(self, name)
            optional = value is None and name in ("top_k", "contrast_k", "seed")
            if not optional and (isinstance(value, bool) or not isinstance(value, int)):
                raise ConfigError(f"{name} is {value!r}, not a whole number")
        for name in (
            "temperature",
            "top_p",
            "guidance_scale",
            "guidance_from",
            "guidance_until",
            "image_guidance_scale",
            "contrast_alpha",
            "repetition_penalty",
            "strong_temperature",
            "weak_temperature",
        ):
            value = getattr(self, name)
            optional = value is None and name == "image_guidance_scale"
            wrong = isinstance(value, bool) or not isinstance(value, int | float)
            if wrong and not optional:
                raise ConfigError(f"{name} is {value!r}, not a number")

    @property
    def is_guided(self) -> bool:
        """Whether a picture needs the lane without its words too."""
        scaled = self.guidance_scale != 1 or self.image_guidance_scale is not None
        return scaled or self.contrast_k is not None

    def seeded(self) -> "GenerationOptions":
        """The same with a seed: its own, or else a new one, so that it can be told."""
        if self.seed is not None:
            return self
        return replace(self, seed=secrets.randbelow(SEEDS))

    @classmethod
    def named(cls) -> tuple[str, ...]:
        """Every option's name."""
        return tuple(field.name for field in fields(cls))
