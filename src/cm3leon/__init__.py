"""CM3Leon: one transformer that reads and writes text and pictures.

The public names, each imported on first use: `import cm3leon` costs nothing, and
torch is only loaded by the names that need it. `docs/api.md` lists them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cm3leon.decoding.engine import Engine as Engine
    from cm3leon.decoding.folder import load as load
    from cm3leon.decoding.options import GenerationOptions as GenerationOptions
    from cm3leon.decoding.scheduler import Scheduler as Scheduler
    from cm3leon.errors import Cm3leonError as Cm3leonError
    from cm3leon.images.tokenizer import ImageTokenizer as ImageTokenizer
    from cm3leon.model.presets import PRESETS as PRESETS
    from cm3leon.model.transformer import Transformer as Transformer
    from cm3leon.retrieval.encoder import BiEncoder as BiEncoder
    from cm3leon.retrieval.memory import MemoryBank as MemoryBank
    from cm3leon.retrieval.retriever import Retriever as Retriever
    from cm3leon.tokens.codec import Codec as Codec
    from cm3leon.tokens.document import Document as Document
    from cm3leon.tokens.document import Hole as Hole
    from cm3leon.tokens.document import Image as Image
    from cm3leon.tokens.document import Text as Text
    from cm3leon.tokens.text import TextTokenizer as TextTokenizer
    from cm3leon.tokens.vocabulary import Vocabulary as Vocabulary

__version__ = "0.1.0"

_HOMES = {
    "BiEncoder": "cm3leon.retrieval.encoder",
    "Cm3leonError": "cm3leon.errors",
    "Codec": "cm3leon.tokens.codec",
    "Document": "cm3leon.tokens.document",
    "Engine": "cm3leon.decoding.engine",
    "GenerationOptions": "cm3leon.decoding.options",
    "Hole": "cm3leon.tokens.document",
    "Image": "cm3leon.tokens.document",
    "ImageTokenizer": "cm3leon.images.tokenizer",
    "MemoryBank": "cm3leon.retrieval.memory",
    "PRESETS": "cm3leon.model.presets",
    "Retriever": "cm3leon.retrieval.retriever",
    "Scheduler": "cm3leon.decoding.scheduler",
    "Text": "cm3leon.tokens.document",
    "TextTokenizer": "cm3leon.tokens.text",
    "Transformer": "cm3leon.model.transformer",
    "Vocabulary": "cm3leon.tokens.vocabulary",
    "load": "cm3leon.decoding.folder",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """The public name `name`, imported now and kept."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
