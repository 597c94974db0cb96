"""Named shapes: one row each. Yu et al. 2023, Table 3."""

from dataclasses import replace

from cm3leon.errors import ConfigError
from cm3leon.model.transformer import TransformerConfig

AUTHORS_VOCABULARY = 66_056  # 65,538 + 512 sentinels, padded to a multiple of 8


def _row(
    width: int, layers: int, heads: int, context: int = 4096, vocabulary: int = 0
) -> TransformerConfig:
    return TransformerConfig(
        vocabulary_size=vocabulary or AUTHORS_VOCABULARY,
        context=context,
        width=width,
        layers=layers,
        heads=heads,
    )


PRESETS = {
    "tiny": _row(64, 2, 4, context=128, vocabulary=512),
    "shipped": _row(384, 6, 6, context=512, vocabulary=5144),
    "350m": _row(1024, 24, 16),
    "760m": _row(1536, 24, 16),
    "7b": _row(4096, 32, 32),
}


def preset(
    name: str, *, vocabulary_size: int | None = None, context: int | None = None
) -> TransformerConfig:
    """The named shape, with another vocabulary or context if given.

    Raises:
        ConfigError: no preset has this name.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise ConfigError(f"no model preset {name!r}; there are: {known}")
    config = PRESETS[name]
    return replace(
        config,
        vocabulary_size=vocabulary_size or config.vocabulary_size,
        context=context or config.context,
    )
