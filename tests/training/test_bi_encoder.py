import json
import math
import signal

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.nn.functional import normalize

from cm3leon.data.picture_report import Report
from cm3leon.data.pictures import Picture, Pictures
from cm3leon.errors import CheckpointError, ConfigError, DataError
from cm3leon.retrieval.encoder import BiEncoder
from cm3leon.training import bi_encoder, checkpoint
from cm3leon.training.bi_encoder import (
    BEGIN,
    END,
    PADDING,
    PRESETS,
    BiEncoderTraining,
    clip_tokenizer,
    concept,
    contrastive_loss,
    normalised,
    pair_stream,
    recall,
    retrieval,
    train,
    untrained,
    view,
)
from cm3leon.training.optimizer import OptimizerConfig
from cm3leon.training.teacher import Teacher, relation_loss, write_teacher

STEPS = 6
CLOCKS = ("seconds", "pictures_per_second")
COLOURS = ["red", "green", "blue", "yellow", "black", "orange", "purple", "gray"]


class Drawings(Pictures):
    """Coloured squares and discs, in place of a collection on disk."""

    def __init__(self, seed, count):
        self.pictures = drawings(seed, count)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        return self.pictures[index]

    def ids(self):
        return [picture.id for picture in self.pictures]

    def scan(self, advance=None):
        return Report(good=len(self), problems=())


def drawings(seed, count):
    random = np.random.default_rng(seed)
    pictures = []
    for number in range(count):
        ground, colour = random.choice(COLOURS, 2, replace=False).tolist()
        image = Image.new("RGB", (24, 20), ground)
        left, top = random.integers(0, 12, 2).tolist()
        image.paste(Image.new("RGB", (12, 12), colour), (left, top))
        shown = f"a {colour} square on {ground}"
        picture = Picture(
            id=f"p{number}",
            image=image,
            caption=shown,
            captions=(shown, f"{colour} on {ground}"),
            metadata={"concept": f"{colour} {ground}"},
        )
        pictures.append(picture)
    return pictures


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    splits = {"train": Drawings(0, 300), "val_concept": Drawings(1, 60)}

    def stub(path, split):
        assert path == "somewhere"
        return splits[split]

    monkeypatch.setattr(bi_encoder.Pictures, "open", stub)
    return splits["train"]


@pytest.fixture
def tokenizer_file(tmp_path, text_tokenizer):
    file = tmp_path / "text_tokenizer.json"
    text_tokenizer.save(file)
    return file


@pytest.fixture
def settings(tmp_path, tokenizer_file):
    def make(run, **changes):
        defaults = {
            "data": "somewhere",
            "text_tokenizer": str(tokenizer_file),
            "run": str(tmp_path / run),
            "preset": "tiny",
            "steps": STEPS,
            "batch": 8,
            "optimizer": OptimizerConfig(learning_rate=3e-3, warmup_steps=2),
            "checkpoint_every": 2,
            "validate_every": 1,  # so that every step is reported
            "bfloat16": False,
        }
        return BiEncoderTraining(**defaults | changes)

    return make


@pytest.fixture
def teacher_file(tmp_path, pictures):
    random = np.random.default_rng(2)
    file = tmp_path / "teacher.npz"

    def vectors(width):
        return lambda asked: torch.from_numpy(random.normal(size=(len(asked), width)))

    write_teacher(file, pictures, vectors(5), vectors(7), ["kiwi", "quince"])
    return file


def stop_after(patch, step):
    """Send SIGTERM while that step is done."""
    act = bi_encoder.Trainer.step

    def step_and_signal(self, number, batch):
        if number + 1 == step:
            signal.raise_signal(signal.SIGTERM)
        return act(self, number, batch)

    patch.setattr(bi_encoder.Trainer, "step", step_and_signal)


def metrics_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [{k: v for k, v in x.items() if k not in CLOCKS} for x in records]


def same_weights(left, right):
    left, right = (checkpoint.load(folder) for folder in (left, right))
    assert left[0] == right[0]
    assert left[1].keys() == right[1].keys()
    for name, tensor in left[1].items():
        assert torch.equal(tensor, right[1][name]), name


@pytest.mark.parametrize("taught", [False, True])
def test_stopping_anywhere_is_going_straight_on(
    settings, tmp_path, teacher_file, taught
):
    changes = {"teacher": str(teacher_file)} if taught else {}
    train(settings("straight", **changes))
    for step in (1, 3) if taught else (1, 2, 5):
        run = settings(f"stopped-{step}", **changes)
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, step)
            assert train(run) == tmp_path / f"stopped-{step}"
        assert checkpoint.steps(tmp_path / f"stopped-{step}")[-1] == step
        assert not (tmp_path / f"stopped-{step}/bi_encoder").exists()
        folder = train(run)
        assert folder == tmp_path / f"stopped-{step}/bi_encoder"
        same_weights(tmp_path / "straight", tmp_path / f"stopped-{step}")
        assert metrics_of(folder.parent) == metrics_of(tmp_path / "straight")


def test_the_same_seed_gives_the_same_weights_and_another_others(settings, tmp_path):
    for run, seed in (("one", 0), ("again", 0), ("other", 1)):
        train(settings(run, seed=seed, validation_split=None))
    same_weights(tmp_path / "one", tmp_path / "again")
    with pytest.raises(AssertionError):
        same_weights(tmp_path / "one", tmp_path / "other")


def test_looking_at_validation_pictures_changes_nothing(settings, tmp_path):
    train(settings("looked"))
    train(settings("blind", validation_split=None))
    same_weights(tmp_path / "looked", tmp_path / "blind")


def test_the_trained_folder_is_read_by_transformers_with_equal_features(
    settings, tmp_path, pictures, without_bfloat16
):
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    folder = train(settings("run"))
    encoder = BiEncoder.load(folder)
    model = CLIPModel.from_pretrained(folder).eval()
    texts = [picture.caption for picture in pictures[:9]]
    images = [picture.image for picture in pictures[:9]]
    read = AutoTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, return_tensors="pt"
    )
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    with torch.inference_mode():
        found = model(**read, **processor(images, return_tensors="pt"))
    assert torch.allclose(encoder.texts(texts), found.text_embeds, atol=1e-5)
    assert torch.allclose(encoder.images(images), found.image_embeds, atol=1e-5)
    assert train(settings("run")) == folder  # done already: nothing more to do
    assert BiEncoder.load(folder).fingerprint == encoder.fingerprint
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {
        "bi_encoder",
        "checkpoints",
        "metrics.jsonl",
        "settings.toml",
        "tensorboard",
    }


def test_it_learns_to_find_pictures_by_text_and_text_by_pictures(settings, tmp_path):
    train(settings("run", steps=150, batch=32, validate_every=50, checkpoint_every=150))
    records = metrics_of(tmp_path / "run")
    first, last = records[0], records[-1]
    assert last["loss/contrastive"] < 0.75 * first["loss/contrastive"]
    for way in ("text_to_image", "image_to_text"):  # chance: about five in 40
        assert last[f"validation/{way}@5"] > 0.25


def unit(*rows):
    return normalize(torch.tensor(rows), dim=-1)


def test_the_loss_by_hand():
    texts, images = unit([1.0, 0.0], [0.0, 1.0]), unit([1.0, 0.0], [3.0, 4.0])
    scale = torch.tensor(math.log(2.0))
    other = torch.eye(2, dtype=torch.bool)
    # twice the cosines: [[2, 1.2], [0, 1.6]]
    rows = math.log(1 + math.exp(1.2 - 2)) + math.log(1 + math.exp(0 - 1.6))
    columns = math.log(1 + math.exp(0 - 2)) + math.log(1 + math.exp(1.2 - 1.6))
    loss = contrastive_loss(texts, images, scale, other)
    assert loss.item() == pytest.approx((rows + columns) / 4)


def test_pairs_of_one_concept_are_not_told_apart():
    generator = torch.Generator().manual_seed(0)
    vectors = normalize(torch.randn(2, 4, 3, generator=generator), dim=-1)
    texts, images = (x.clone().requires_grad_() for x in vectors)
    concepts = torch.tensor([0, 0, 1, 2])
    same = concepts[:, None] == concepts[None, :]
    loss = contrastive_loss(texts, images, torch.tensor(1.0), same)
    # by hand: each row without the other of its concept
    similar = (math.e * vectors[0] @ vectors[1].T).tolist()
    expected = 0.0
    for i in range(4):
        for other in (similar[i], [row[i] for row in similar]):
            kept = [other[j] for j in range(4) if j == i or not same[i, j]]
            expected += math.log(sum(math.exp(x) for x in kept)) - other[i]
    assert loss.item() == pytest.approx(expected / 8, rel=1e-5)
    # where all are of one concept there is nothing to learn
    alone = contrastive_loss(texts, images, torch.tensor(1.0), torch.ones_like(same))
    assert alone.item() == 0
    # moving a picture along its namesake's caption alone changes nothing
    flat = contrastive_loss(
        unit([1.0, 0, 0], [0, 1.0, 0]),
        unit([1.0, 0, 0], [0.6, 0.8, 0]),
        torch.tensor(1.0),
        torch.ones(2, 2, dtype=torch.bool),
    )
    assert flat.item() == 0


def test_it_is_the_loss_of_transformers_where_all_concepts_differ():
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    generator = torch.Generator().manual_seed(0)
    texts, images = normalize(torch.randn(2, 6, 4, generator=generator), dim=-1)
    scale = torch.tensor(2.0)
    expected = image_text_contrastive_loss(scale.exp() * texts @ images.T)
    found = contrastive_loss(texts, images, scale, torch.eye(6, dtype=torch.bool))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_scale_stays_below_a_hundred(settings, monkeypatch):
    run = settings("run", optimizer=OptimizerConfig(learning_rate=3.0, warmup_steps=1))
    trainer = bi_encoder.Trainer(run)
    with torch.no_grad():
        trainer.model.logit_scale.fill_(math.log(99.9))
    stream = pair_stream(Drawings(0, 20), 16, run)
    scales = [trainer.step(step, next(stream))["scale"] for step in range(3)]
    assert max(scales) <= 100.001


def test_the_relation_to_a_teacher_by_hand():
    ours = unit([1.0, 0.0], [0.0, 1.0], [3.0, 4.0])  # cosines 0, 0.6, 0.8
    theirs = unit([1.0, 0.0, 0], [0.0, 1.0, 0], [0, 3.0, 4.0])  # 0, 0, 0.6

    def shares(*cosines):
        values = [math.exp(x / 0.5) for x in cosines]
        return [x / sum(values) for x in values]

    expected = 0.0
    for p, q in (
        (shares(0, 0), shares(0, 0.6)),
        (shares(0, 0.6), shares(0, 0.8)),
        (shares(0, 0.6), shares(0.6, 0.8)),
    ):
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 3
    assert relation_loss(ours, theirs, 0.5).item() == pytest.approx(expected, rel=1e-4)


def test_who_agrees_with_the_teacher_has_nothing_to_learn_from_it(teacher_file):
    teacher = Teacher(str(teacher_file))
    ids = ["p3", "p0", "p7", "p1"]
    rows = [3, 0, 7, 1]
    texts, images = (
        normalize(torch.from_numpy(x[rows]).float(), dim=-1)
        for x in (teacher.texts, teacher.images)
    )
    turned = texts @ torch.linalg.qr(torch.randn(7, 7))[0]
    assert teacher.loss(ids, turned, images, 0.1).item() == pytest.approx(0, abs=1e-5)
    assert teacher.loss(ids, texts, images.flip(0), 0.1).item() > 0.01


def test_words_stand_where_a_caption_names_what_it_shows(teacher_file):
    teacher = Teacher(str(teacher_file))
    captions = ["a flat emoji of a tree", "a tree"] * 50
    texts, vectors = teacher.words(captions, np.random.default_rng(0))
    assert vectors.norm(dim=1) == pytest.approx(torch.ones(100), abs=1e-3)
    framed = [text.removeprefix("a flat emoji of a ") for text in texts]
    assert 15 < sum(a != b for a, b in zip(texts, framed, strict=True)) < 35
    assert len(set(framed)) > 20
    for text, vector in zip(framed, vectors, strict=True):
        assert torch.equal(vector, vectors[framed.index(text)])


def test_a_teacher_is_heard(settings, teacher_file, tmp_path):
    for run, weight in (("heard", 5.0), ("ignored", 0.0)):
        changes = {"teacher": str(teacher_file), "teacher_weight": weight}
        train(settings(run, steps=40, batch=16, **changes))
    heard, ignored = (
        np.mean([x["loss/teacher"] for x in metrics_of(tmp_path / run)[-5:]])
        for run in ("heard", "ignored")
    )
    assert heard < 0.9 * ignored


def test_a_teacher_that_does_not_fit_is_named(teacher_file, tmp_path):
    teacher = Teacher(str(teacher_file))
    vectors = torch.eye(2)
    with pytest.raises(DataError, match=r"teacher.npz has no vectors of picture x"):
        teacher.loss(["p0", "x"], vectors, vectors, 0.1)
    with pytest.raises(DataError, match=r"nowhere.npz is no .npz of ids, images, te"):
        Teacher(str(tmp_path / "nowhere.npz"))
    np.savez(tmp_path / "few.npz", ids=["p0"], images=np.ones((2, 3)))
    with pytest.raises(DataError, match=r"few.npz is no .npz of ids, images, texts, w"):
        Teacher(str(tmp_path / "few.npz"))
    ones = np.ones((2, 3))
    rest = {"words": ["x"], "word_vectors": ones[:1]}
    np.savez(tmp_path / "odd.npz", ids=["p0"], images=ones, texts=ones, **rest)
    with pytest.raises(DataError, match=r"odd.npz has 1 ids, 2 images, 2 texts"):
        Teacher(str(tmp_path / "odd.npz"))


def test_recall_counts_queries_whose_best_right_candidate_is_early():
    relevances = torch.tensor([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1], [0.5, 0.4, 0.3]])
    right = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 1]]).bool()
    found = recall(relevances, right, ranks=(1, 2, 3))
    assert found == pytest.approx([1 / 3, 2 / 3, 1])


def test_a_wrong_candidate_as_relevant_as_the_right_one_counts_as_before_it():
    relevances = torch.ones(2, 4)
    right = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0]]).bool()
    assert recall(relevances, right, ranks=(1, 2, 3, 4)) == [0, 0, 0.5, 1]


def test_equal_captions_are_one_and_right_is_all_of_a_concept():
    class Known(BiEncoder):
        def __init__(self):
            pass

        def texts(self, texts):
            assert texts == ["a cat", "a dog", "a puppy"]
            return torch.eye(3)

        def images(self, images):  # cat, cat like a dog, dog like a puppy, puppy
            return torch.eye(3)[[0, 1, 2, 2]]

    captions = ["a cat", "a cat", "a dog", "a puppy"]
    found = retrieval(
        Known(), captions, [Image.new("RGB", (1, 1))] * 4, ["cat", "cat", "dog", "dog"]
    )
    # "a dog" finds the cat first; the cat like a dog finds "a dog" first
    assert found["text_to_image@1"] == pytest.approx(2 / 3)
    assert found["image_to_text@1"] == pytest.approx(3 / 4)
    assert found["text_to_image@5"] == found["image_to_text@5"] == 1


def test_texts_are_framed_and_cut_and_specials_are_only_words(tokenizer_file):
    tokenizer = clip_tokenizer(tokenizer_file, 16)
    begin, end, padding = tokenizer.convert_tokens_to_ids([BEGIN, END, PADDING])
    first, second = tokenizer(["A red apple", "a"], padding=True).input_ids
    assert (first[0], first[-1]) == (begin, end)
    assert second[-1] == padding
    assert first == tokenizer("a red apple").input_ids
    cut = tokenizer("apple " * 50, truncation=True, max_length=16).input_ids
    assert (len(cut), cut[0], cut[-1]) == (16, begin, end)
    spelled = tokenizer(f"a {BEGIN} {END} {PADDING}").input_ids[1:-1]
    assert not {begin, end, padding} & set(spelled)
    word = tokenizer("apple").input_ids[1:-1]
    assert tokenizer("red apple").input_ids[-1 - len(word) : -1] == word


def test_no_text_tokenizer_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json is no text tokenizer"):
        clip_tokenizer(tmp_path / "nowhere.json", 16)


def test_the_shipped_shape_fits_what_it_may_take(tokenizer_file, tmp_path):
    encoder = untrained(PRESETS["shipped"], tokenizer_file)
    others = sum(x.numel() for x in encoder.model.parameters())
    rows = encoder.model.text_model.embeddings.token_embedding.num_embeddings
    everything = others + (3075 - rows) * PRESETS["shipped"].text_width
    assert 3e6 < everything < 4e6
    assert encoder.width == 64


@pytest.fixture
def square_picture():
    random = np.random.default_rng(0)
    return Image.fromarray(random.integers(0, 200, (40, 40, 3), dtype=np.uint8))


def test_a_view_is_by_default_what_the_processor_makes(square_picture, tokenizer_file):
    encoder = untrained(PRESETS["tiny"], tokenizer_file)
    seen = np.stack([view(square_picture, 16)])
    assert torch.allclose(normalised(seen), encoder.pixels([square_picture]), atol=1e-6)


def test_white_comes_in_where_a_view_leaves_the_picture(square_picture):
    far = np.asarray(view(square_picture, 80, seen=2.0))
    assert (far[:15] == 255).all()
    assert (far[:, -15:] == 255).all()
    assert (far[25:-25, 25:-25] < 255).all()
    moved = np.asarray(view(square_picture, 40, right=0.25, down=-0.5))
    assert (moved[:20] == 255).all()
    assert (moved[:, 30:] == 255).all()
    original = np.asarray(square_picture)
    assert np.array_equal(moved[20:, :30], original[:20, 10:])


def test_a_wide_picture_is_seen_in_its_middle():
    wide = Image.new("RGB", (30, 10), "red")
    wide.paste("blue", (10, 0, 20, 10))
    assert view(wide, 10).getcolors() == [(100, (0, 0, 255))]


def rows(stream, count):
    return [next(stream) for _ in range(count)]


def test_the_stream_resumes_anywhere(pictures, settings):
    run = settings("run", batch=7)
    whole = rows(pair_stream(pictures, 16, run), 6)
    for taken in (1, 4):
        stream = pair_stream(pictures, 16, run)
        rows(stream, taken)
        state = json.loads(json.dumps(json.dumps(stream.get_state())))
        resumed = pair_stream(pictures, 16, run)
        resumed.set_state(json.loads(state))
        for batch, expected in zip(
            rows(resumed, 6 - taken), whole[taken:], strict=True
        ):
            assert batch.keys() == expected.keys()
            assert all(np.array_equal(batch[key], expected[key]) for key in batch)


def test_an_epoch_shows_every_picture_once_with_one_of_its_captions(settings):
    pictures = Drawings(0, 10)
    stream = pair_stream(pictures, 16, settings("run", batch=10))
    drawn = {picture.id: set() for picture in pictures.pictures}
    for _ in range(12):
        batch = next(stream)
        assert batch["pixels"].shape == (10, 16, 16, 3)
        assert batch["pixels"].dtype == np.uint8
        assert sorted(batch["id"].tolist()) == sorted(drawn)
        for name, caption in zip(batch["id"], batch["caption"], strict=True):
            drawn[str(name)].add(str(caption))
    for picture in pictures.pictures:
        assert drawn[picture.id] == set(picture.captions)


@pytest.mark.parametrize(("caption", "turns"), [("a cup", True), ("a left", False)])
def test_only_what_has_no_side_is_mirrored(settings, caption, turns):
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    pictures = Drawings(0, 1)
    pictures.pictures = [
        Picture(id="x", image=image, caption=caption, captions=(caption,))
    ]
    run = settings("run", batch=20, zoom=0.0, shift=0.0)
    seen = list(next(pair_stream(pictures, 16, run))["pixels"])
    mirrored = sum(np.array_equal(x, np.asarray(ImageOps.mirror(image))) for x in seen)
    same = sum(np.array_equal(x, np.asarray(image)) for x in seen)
    assert same + mirrored == 20
    assert (3 < mirrored < 17) if turns else mirrored == 0


def test_what_has_no_concept_is_known_by_its_caption():
    image = Image.new("RGB", (4, 4))
    bare = Picture(id="x", image=image, caption="a cat", captions=("a cat", "cat"))
    assert concept(bare) == "a cat"
    named = {"concept": "cat"}
    assert concept(Picture(**vars(bare) | {"metadata": named})) == "cat"


def test_a_checkpoint_of_another_shape_is_named(settings, monkeypatch):
    run = settings("run", steps=1, validation_split=None)
    train(run)
    other = type(PRESETS["tiny"])(**vars(PRESETS["tiny"]) | {"vector": 24})
    monkeypatch.setitem(PRESETS, "tiny", other)
    with pytest.raises(CheckpointError, match=r"the checkpoint: \S+ is \[.*needs \["):
        train(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "tinny"}, "no bi-encoder preset 'tinny'; there: tiny, shipped"),
        ({"steps": 0}, "steps is 0 and batch 8; at least 1 step"),
        ({"batch": 1}, "steps is 6 and batch 1; at least 1 step"),
        ({"zoom": 1.0}, r"zoom is 1.0 and shift 0.08; both are in \[0, 1\)"),
        ({"teacher_temperature": 0.0}, "teacher_temperature is 0.0, not above 0"),
        ({"optimizer": OptimizerConfig(kind="muon")}, "optimizer.kind is muon; a bi-"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, changes, message):
    with pytest.raises(ConfigError, match=message):
        settings("run", **changes)
