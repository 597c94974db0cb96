"""Pretraining: settings, and how they become one call of the loop."""

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from cm3leon.config import dump_settings
from cm3leon.data.shards import Shards
from cm3leon.data.stream import (
    Batch,
    StreamConfig,
    TokenStream,
    collate,
    document_parts,
    plain_row,
)
from cm3leon.decoding.engine import Engine
from cm3leon.decoding.folder import parameters_of, save
from cm3leon.decoding.options import GenerationOptions
from cm3leon.images.sheet import contact_sheet
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.model.presets import preset
from cm3leon.model.transformer import Transformer
from cm3leon.objective.cm3 import CM3Config
from cm3leon.tokens.codec import Codec, assemble
from cm3leon.tokens.document import Document, Text
from cm3leon.tokens.text import TextTokenizer
from cm3leon.tokens.vocabulary import Vocabulary
from cm3leon.training import checkpoint, loop
from cm3leon.training.distributed import (
    DistributedConfig,
    World,
    build,
    whole_model,
    world,
)
from cm3leon.training.loop import LoopConfig, Run
from cm3leon.training.optimizer import Optimizer, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which shape, and where it starts."""

    preset: str = "shipped"
    context: int | None = None  # other than the preset's
    start: str | None = None  # a model folder whose parameters to go on from


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Settings of one pretraining run."""

    run: str  # folder of checkpoints, curves, sheets and the trained model
    tokenizers: str  # folder with text_tokenizer.json and image_tokenizer/
    stream: StreamConfig
    held_out: str | None = None  # shards to validate on
    held_out_neighbours: tuple[int, ...] = (0,)  # numbers to validate with
    prompts: tuple[str, ...] = ()  # drawn on the sample sheets
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: CM3Config = field(default_factory=CM3Config)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)


@dataclass(frozen=True)
class Parts:
    """Everything a model folder holds beside the transformer."""

    vocabulary: Vocabulary
    text_tokenizer: TextTokenizer
    image_tokenizer: ImageTokenizer

    @classmethod
    def load(cls, folder: Path) -> "Parts":
        """Read the tokenizers and lay out their vocabulary."""
        text_tokenizer = TextTokenizer.load(folder / "text_tokenizer.json")
        image_tokenizer = ImageTokenizer.load(folder / "image_tokenizer")
        file = folder / "vocabulary.json"
        vocabulary = (
            Vocabulary.load(file)
            if file.exists()
            else Vocabulary.own(text_tokenizer.size, image_tokenizer.codebook_size)
        )
        return cls(vocabulary, text_tokenizer, image_tokenizer)


def held_out_batches(
    shards: Shards,
    vocabulary: Vocabulary,
    context: int,
    slot: int,
    neighbours: int = 0,
    rows: int = 64,
) -> list[Batch]:
    """Unrotated rows of first captions, always the same.

    Only the document counts, not the neighbours before it, so that losses with more and
    with fewer compare.
    """
    out = []
    for start in range(0, len(shards), rows):
        made = []
        for number in range(start, min(start + rows, len(shards))):
            record = shards[number]
            before = document_parts(record.neighbours[:neighbours])
            own = document_parts([record.segments])
            ids = assemble(vocabulary, [*before, *own])[: context + 1]
            # what stands before it: <eos>, or neighbours and the <break> behind them
            first = len(assemble(vocabulary, before)) if before else 0
            made.append(plain_row(vocabulary, ids, slot, first))
        out.append(collate(made, vocabulary.pad))
    return out


def new_model(
    settings: Pretrain, vocabulary: Vocabulary, here: World | None = None
) -> Transformer:
    """The model with fresh parameters, or with those of `model.start`."""
    here = here or World()
    shape = preset(
        settings.model.preset,
        vocabulary_size=vocabulary.size,
        context=settings.model.context,
    )
    bfloat16 = here.bfloat16(settings.loop.bfloat16)
    model = build(shape, settings.seed, settings.distributed, here, bfloat16)
    if settings.model.start:
        folder = Path(settings.model.start)
        checkpoint.fit(model, parameters_of(folder), str(folder / "model.safetensors"))
    return model


def pixels_of(document: Document) -> Image.Image:
    """The last picture of a document that an engine made."""
    pixels = document.images[-1].pixels
    assert pixels is not None, "the engine decodes what it draws"
    return pixels


def train(settings: Pretrain) -> Path | None:
    """Train, or resume; the finished model's folder, or None if a signal stopped it.

    Under torchrun all processes share the work and the first one has the result.

    Raises:
        ConfigError: the settings contradict each other, or the number of processes.
        DataError: the shards do not fit the tokenizers.
        TrainingError: a loss is not finite, or a process was lost.
    """
    with world(settings.distributed) as here:
        settings.stream.check_ranks(here.ranks)
        return _train(settings, here)


def _train(settings: Pretrain, here: World) -> Path | None:
    folder = Path(settings.run)
    parts = Parts.load(Path(settings.tokenizers))
    vocabulary, stream = parts.vocabulary, settings.stream
    model = new_model(settings, vocabulary, here)
    context = model.config.context
    run = Run(
        model,
        Optimizer(model, settings.optimizer, settings.loop.steps),
        TokenStream(
            stream,
            settings.objective,
            vocabulary,
            context,
            seed=settings.seed,
            rank=here.rank,
            ranks=here.ranks,
        ),
        vocabulary,
        settings.loop,
        here,
    )
    batches: dict[int, list[Batch]] = {}
    if settings.held_out:
        shards = Shards(Path(settings.held_out))
        batches = {
            count: held_out_batches(
                shards, vocabulary, context, stream.position_slot, count
            )
            for count in settings.held_out_neighbours
        }
    folder.mkdir(parents=True, exist_ok=True)
    if here.first:
        (folder / "settings.toml").write_text(dump_settings(settings))

    def sample(step: int) -> None:
        if not settings.prompts or (whole := whole_model(model, here)) is None:
            return
        images = parts.image_tokenizer
        codec = Codec(vocabulary, parts.text_tokenizer, images.codes_per_image)
        engine = Engine(whole, codec, images, stream.position_slot)
        options = GenerationOptions(seed=settings.seed)
        documents = [Document(Text(prompt)) for prompt in settings.prompts]
        drawn = engine.extend(documents, options)
        pictures = [pixels_of(document) for document in drawn]
        labelled = list(zip(settings.prompts, pictures, strict=True))
        contact_sheet(labelled).save(folder / f"samples-{step:07d}.png")

    if not loop.train(run, folder, batches, sample):
        return None
    if (whole := whole_model(model, here)) is None:
        return None
    out = folder / "model"
    save(
        out,
        whole,
        vocabulary,
        parts.text_tokenizer,
        parts.image_tokenizer,
        stream.position_slot,
        GenerationOptions(),
    )
    return out
