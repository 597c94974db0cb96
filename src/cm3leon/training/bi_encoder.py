"""Training of a small CLIP: captions and pictures of one space. Radford et al. 2021.

    s_ij = exp(scale) <t_i, v_j>        scale: learned, exp(scale) at most 100
    L    = 1/2 mean_i ( log sum_j exp s_ij - s_ii ) + the same of the transpose

t_i, v_i: unit vectors of a caption and a picture, a pair a row. Several pictures show
one thing, so j runs over i and the rows of *other* concepts: what is right as well is
neither drawn near nor pushed apart.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grain
import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageOps
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F

from cm3leon.data.build import may_mirror
from cm3leon.data.pictures import Picture, Pictures
from cm3leon.errors import ConfigError
from cm3leon.precision import autocast
from cm3leon.randomness import generator
from cm3leon.retrieval.encoder import BiEncoder
from cm3leon.tokens.text import TextTokenizer
from cm3leon.training import checkpoint, picture_loop
from cm3leon.training.optimizer import Optimizer, OptimizerConfig
from cm3leon.training.picture_loop import PictureTraining
from cm3leon.training.teacher import Teacher, relation_loss

HOTTEST = math.log(100)  # largest scale; Radford et al. 2021, §2.5
RANKS = (1, 5, 10)
# A space within keeps them apart from every token a byte-level BPE can learn.
BEGIN, END, PADDING = "<begin of text>", "<end of text>", "<padding of text>"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of both towers; a head is 32 wide."""

    vector: int  # width of what both towers end in
    pixels: int  # side of a picture
    patch: int
    image_width: int
    image_layers: int
    text_width: int
    text_layers: int
    context: int  # most ids of a text, begin and end included


PRESETS = {
    "tiny": Shape(
        vector=16,
        pixels=16,
        patch=4,
        image_width=32,
        image_layers=1,
        text_width=32,
        text_layers=1,
        context=16,
    ),
    "shipped": Shape(  # 3.7 M parameters
        vector=64,
        pixels=48,
        patch=8,
        image_width=160,
        image_layers=6,
        text_width=160,
        text_layers=4,
        context=32,
    ),
}


@dataclass(frozen=True, kw_only=True)
class BiEncoderTraining(PictureTraining):
    """Settings of one training of a bi-encoder."""

    text_tokenizer: str  # the `text_tokenizer.json` whose ids the text tower reads
    preset: str = "shipped"
    steps: int = 1400
    batch: int = 256  # pairs that are told apart
    zoom: float = 0.15  # largest share by which a view is nearer or further
    shift: float = 0.08  # and moved, of the picture's side; white comes in
    teacher: str | None = None  # .npz of `cm3leon data teacher`
    teacher_weight: float = 1.0
    teacher_temperature: float = 0.05
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=1e-3, warmup_steps=100, decay="cosine", final_share=0.02
        )
    )
    bfloat16: bool | None = None  # by default where the processor has it

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            known = ", ".join(PRESETS)
            raise ConfigError(f"no bi-encoder preset {self.preset!r}; there: {known}")
        if self.steps < 1 or self.batch < 2:
            raise ConfigError(
                f"steps is {self.steps} and batch {self.batch}; at least 1 step and a "
                "batch of 2 pairs are needed"
            )
        if not 0 <= self.zoom < 1 or not 0 <= self.shift < 1:
            raise ConfigError(
                f"zoom is {self.zoom} and shift {self.shift}; both are in [0, 1)"
            )
        if self.teacher_temperature <= 0:
            raise ConfigError(
                f"teacher_temperature is {self.teacher_temperature}, not above 0"
            )
        if self.optimizer.kind != "adamw":
            raise ConfigError(
                f"optimizer.kind is {self.optimizer.kind}; a bi-encoder learns by adamw"
            )


def untrained(shape: Shape, text_tokenizer: Path) -> BiEncoder:
    """A `CLIPModel` of torch's current random state, with all its folder holds."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    tokenizer = clip_tokenizer(text_tokenizer, shape.context)
    config = CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": shape.text_width,
            "intermediate_size": 4 * shape.text_width,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": shape.text_width // 32,
            "max_position_embeddings": shape.context,
            "hidden_act": "gelu",
            "projection_dim": shape.vector,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": shape.image_width,
            "intermediate_size": 4 * shape.image_width,
            "num_hidden_layers": shape.image_layers,
            "num_attention_heads": shape.image_width // 32,
            "image_size": shape.pixels,
            "patch_size": shape.patch,
            "hidden_act": "gelu",
            "projection_dim": shape.vector,
        },
        projection_dim=shape.vector,
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": shape.pixels},
        crop_size={"height": shape.pixels, "width": shape.pixels},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return BiEncoder(CLIPModel(config), tokenizer, processor)


def clip_tokenizer(path: Path, context: int) -> Any:
    """A text tokenizer as transformers wants it: `BEGIN`, ids of the text, `END`.

    As CLIP's own it takes no notice of capitals, nor of whether a word is the first.
    Text that spells a special token stays text.

    Raises:
        DataError: the file is no text tokenizer.
    """
    from transformers import PreTrainedTokenizerFast

    TextTokenizer.load(path)
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.add_special_tokens([BEGIN, END, PADDING])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[BEGIN, "$A", END],
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (BEGIN, END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PADDING,
        model_max_length=context,
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


def concept(picture: Picture) -> str:
    """What a picture shows, as far as its collection says; else its caption."""
    return str(picture.metadata.get("concept") or picture.caption)


def view(
    image: Image.Image,
    side: int,
    seen: float = 1.0,
    right: float = 0.0,
    down: float = 0.0,
) -> Image.Image:
    """A square part of a picture on white, by default its centre square.

    Args:
        image: RGB.
        side: of the result, in pixels.
        seen: side of the part, as a share of the picture's short one.
        right: of the centre is the part's, by that share; below 0: left.
        down: likewise.
    """
    short = min(image.size)
    edge = short * seen
    left = (image.width - edge) / 2 + right * short
    top = (image.height - edge) / 2 + down * short
    outside = max(-left, -top, left + edge - image.width, top + edge - image.height)
    if outside > 0:
        margin = math.ceil(outside)
        image = ImageOps.expand(image, margin, "white")
        left, top = left + margin, top + margin
    box = (left, top, left + edge, top + edge)
    return image.resize((side, side), Image.Resampling.BICUBIC, box=box)


@dataclass(frozen=True)
class _Pair:
    """Grain transform: a view of a picture and one of its captions."""

    side: int
    zoom: float
    shift: float

    def __call__(self, picture: Any, random: np.random.Generator) -> dict[str, Any]:
        seen = 1 + self.zoom * random.uniform(-1, 1)
        right, down = (self.shift * random.uniform(-1, 1, 2)).tolist()
        image = view(picture.image, self.side, seen, right, down)
        if random.random() < 0.5 and may_mirror(picture):
            image = ImageOps.mirror(image)
        return {
            "id": picture.id,
            "concept": concept(picture),
            "caption": picture.captions[random.integers(len(picture.captions))],
            "pixels": np.asarray(image),
        }


def pair_stream(pictures: Pictures, side: int, settings: BiEncoderTraining) -> Any:
    """Endless shuffled batches of pairs; its state resumes exactly."""
    stream = grain.MapDataset.source(pictures).seed(settings.seed).shuffle().repeat()
    stream = stream.random_map(_Pair(side, settings.zoom, settings.shift))
    stream = stream.batch(settings.batch)
    return iter(stream.to_iter_dataset(grain.ReadOptions(1, 2 * settings.batch)))


def contrastive_loss(
    texts: Float[Tensor, "pair width"],
    images: Float[Tensor, "pair width"],
    scale: Float[Tensor, ""],
    same: Bool[Tensor, "pair pair"],
) -> Float[Tensor, ""]:
    """The formula above.

    Args:
        texts: unit vectors of captions.
        images: unit vectors of their pictures.
        scale: logarithm of what multiplies cosines.
        same: whether two rows are of one concept.
    """
    own = torch.eye(len(texts), dtype=torch.bool)
    similar = (scale.exp() * texts @ images.T).masked_fill(same & ~own, -torch.inf)
    rows = torch.arange(len(texts))
    return (F.cross_entropy(similar, rows) + F.cross_entropy(similar.T, rows)) / 2


class Trainer:
    """A bi-encoder, its optimizer and its teacher, if it has one."""

    def __init__(self, settings: BiEncoderTraining) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        shape = PRESETS[settings.preset]
        self.encoder = untrained(shape, Path(settings.text_tokenizer))
        self.model = self.encoder.model
        # at these lengths the fused kernel's backward takes half a step on a CPU
        self.model.set_attn_implementation("eager")
        self.optimizer = Optimizer(self.model, settings.optimizer, settings.steps)
        self.teacher = Teacher(settings.teacher) if settings.teacher else None

    def step(self, number: int, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One optimizer step on pairs; what it measured."""
        settings, encoder = self.settings, self.encoder
        ids, mask = encoder.read(batch["caption"].tolist())
        with autocast(settings.bfloat16):
            texts = encoder.text_vectors(ids, mask)
            images = encoder.image_vectors(normalised(batch["pixels"]))
        concepts = batch["concept"]
        same = torch.from_numpy(concepts[:, None] == concepts[None, :])
        loss = contrastive_loss(texts, images, self.model.logit_scale, same)
        values = {"loss/contrastive": loss.item()}
        if self.teacher is not None:
            names, temperature = batch["id"].tolist(), settings.teacher_temperature
            taught = self.teacher.loss(names, texts, images, temperature)
            chance = generator(settings.seed, "words", number)
            words, theirs = self.teacher.words(batch["caption"].tolist(), chance)
            with autocast(settings.bfloat16):
                ours = encoder.text_vectors(*encoder.read(words))
            taught = taught + relation_loss(ours, theirs, temperature)
            values["loss/teacher"] = taught.item()
            loss = loss + settings.teacher_weight * taught
        loss.backward()
        values["gradient_norm"] = self.optimizer.step(number)
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=HOTTEST)
        values["scale"] = self.model.logit_scale.exp().item()
        return values

    def state(self) -> dict[str, Any]:
        """Everything but the parameters that a resumed training needs."""
        return {"optimizer": self.optimizer.state_dict()}

    def restore(self, model: dict[str, Tensor], parts: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        checkpoint.fit(self.model, model, "the checkpoint")
        self.optimizer.load_state_dict(parts["optimizer"])


def normalised(pixels: np.ndarray) -> Float[Tensor, "image 3 side side"]:
    """uint8 pictures, channels last, as the presets' processor scales them."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def recall(
    relevances: Float[Tensor, "query candidate"],
    right: Bool[Tensor, "query candidate"],
    ranks: Sequence[int] = RANKS,
) -> list[float]:
    """Shares of queries with a right candidate among the first 1, 5, 10.

    A query has one right candidate or more. Wrong candidates as relevant as the best
    right one count as before it.
    """
    best = relevances.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    ahead = ((relevances >= best) & ~right).sum(dim=1)
    return [(ahead < rank).float().mean().item() for rank in ranks]


def retrieval(
    encoder: BiEncoder,
    captions: Sequence[str],
    images: Sequence[Image.Image],
    concepts: Sequence[str],
) -> dict[str, float]:
    """Recall both ways among some pictures and their captions, one each.

    A caption that several pictures have is one query and one candidate. Right is every
    picture of a concept that has the caption, and every caption of a picture's concept.
    """
    texts = list(dict.fromkeys(captions))
    named = set(zip(captions, concepts, strict=True))
    right = torch.tensor([[(text, x) in named for x in concepts] for text in texts])
    relevances = encoder.texts(texts) @ encoder.images(images).T
    there = zip(RANKS, recall(relevances, right), strict=True)
    back = zip(RANKS, recall(relevances.T, right.T), strict=True)
    return {f"text_to_image@{rank}": share for rank, share in there} | {
        f"image_to_text@{rank}": share for rank, share in back
    }


def _line(values: Mapping[str, float], rate: float) -> str:
    parts = [f"loss {values['loss/contrastive']:.3f}"]
    if "loss/teacher" in values:
        parts.append(f"teacher {values['loss/teacher']:.3f}")
    for way in ("text_to_image", "image_to_text"):
        if f"validation/{way}@1" in values:
            shares = [f"{values[f'validation/{way}@{rank}']:.0%}" for rank in RANKS]
            parts.append(f"{way.replace('_', ' ')} {' '.join(shares)}")
    return " · ".join([*parts, f"{rate:.1f} pictures/s"])


def train(settings: BiEncoderTraining) -> Path:
    """Train, or resume, a bi-encoder; the folder it was written to.

    The run folder holds checkpoints, `metrics.jsonl`, TensorBoard curves, and in the
    end `bi_encoder/`: weights in fp16 that `BiEncoder.load` and transformers read.

    Raises:
        CheckpointError: the run folder holds a checkpoint of another shape.
        DataError: the text tokenizer, the teacher or the pictures cannot be used.
    """
    trainer = Trainer(settings)
    pictures = Pictures.open(settings.data, settings.split)
    side = PRESETS[settings.preset].pixels
    held_out = settings.held_out()

    def validate(_: int) -> dict[str, float]:
        measured = retrieval(
            trainer.encoder,
            [picture.caption for picture in held_out],
            [view(picture.image, side) for picture in held_out],
            [concept(picture) for picture in held_out],
        )
        return {f"validation/{name}": x for name, x in measured.items()}

    stream = pair_stream(pictures, side, settings)
    whole = picture_loop.train(
        trainer, stream, settings, pictures, validate if held_out else None, _line
    )
    if not whole:
        return Path(settings.run)
    folder = Path(settings.run) / "bi_encoder"
    trainer.encoder.save(folder, half=True)
    return folder
