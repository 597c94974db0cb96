import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from cm3leon.data.picture_report import Report
from cm3leon.data.pictures import Picture, Pictures
from cm3leon.errors import CheckpointError, ConfigError
from cm3leon.images.pixels import square, to_tensor
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.training import checkpoint, image_tokenizer
from cm3leon.training.image_tokenizer import (
    ImageTokenizerTraining,
    Trainer,
    picture_stream,
    scale,
    share_of_peak,
    sheet,
    train,
)

STEPS = 8
CLOCKS = ("seconds", "pictures_per_second")


class Drawings(Pictures):
    """Pictures of one coloured square each, in place of a collection on disk."""

    def __init__(self, seed, count):
        self.pictures = drawings(seed, count)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        return self.pictures[index]

    def __iter__(self):
        return iter(self.pictures)

    def groups(self, name):
        assert name == "tier"
        return {"core": [0, 1], "mono": list(range(2, len(self)))}

    def scan(self, advance=None):
        return Report(good=len(self), problems=())


def drawings(seed, count):
    random = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        ground, colour = random.integers(0, 256, (2, 3)).tolist()
        image = Image.new("RGB", (24, 20), tuple(ground))
        left, top = random.integers(0, 12, 2).tolist()
        image.paste(Image.new("RGB", (8, 8), tuple(colour)), (left, top))
        words = {"caption": "a square", "captions": ("a square",)}
        pictures.append(Picture(id=f"p{len(pictures)}", image=image, **words))
    return pictures


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    splits = {"train": Drawings(0, 7), "val_concept": Drawings(1, 3)}

    def stub(path, split):
        assert path == "somewhere"
        return splits[split]

    monkeypatch.setattr(image_tokenizer.Pictures, "open", stub)
    return splits["train"]


@pytest.fixture
def settings(tmp_path):
    def make(run, **changes):
        defaults = {
            "data": "somewhere",
            "run": str(tmp_path / run),
            "preset": "tiny",
            "steps": STEPS,
            "batch": 4,
            "warmup_steps": 2,
            "quantise_from": 3,
            "revive_every": 2,
            "adversarial_from": 6,
            "checkpoint_every": 3,
            "validate_every": 1,  # so that every step is reported
        }
        return ImageTokenizerTraining(**defaults | changes)

    return make


def stop_after(monkeypatch, step):
    """Send SIGTERM while that step is done."""
    act = Trainer.step

    def step_and_signal(self, number, pixels):
        if number + 1 == step:
            signal.raise_signal(signal.SIGTERM)
        return act(self, number, pixels)

    monkeypatch.setattr(Trainer, "step", step_and_signal)


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


# before the codebook starts, at its start, after the critic has joined; in between
@pytest.mark.parametrize(
    ("bfloat16", "muon", "stops"),
    [(False, None, (1, 3, 7)), (False, 0.02, (4,)), (True, None, (5,))],
)
def test_stopping_anywhere_is_going_straight_on(
    settings, tmp_path, bfloat16, muon, stops
):
    changes = {"bfloat16": bfloat16, "muon_learning_rate": muon}
    train(settings("straight", **changes))
    for step in stops:
        run = settings(f"stopped-{step}", **changes)
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, step)
            assert train(run) == tmp_path / f"stopped-{step}"
        assert checkpoint.steps(tmp_path / f"stopped-{step}")[-1] == step
        assert not (tmp_path / f"stopped-{step}/image_tokenizer").exists()
        folder = train(run)
        assert folder == tmp_path / f"stopped-{step}/image_tokenizer"
        same_weights(tmp_path / "straight", tmp_path / f"stopped-{step}")
        assert metrics_of(folder.parent) == metrics_of(tmp_path / "straight")


def test_a_signal_in_the_last_step_comes_too_late_to_stop(settings, tmp_path):
    run = settings("run", steps=2, validation_split=None)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        assert train(run) == tmp_path / "run/image_tokenizer"


def test_looking_at_validation_pictures_changes_nothing(settings, tmp_path):
    train(settings("looked"))
    train(settings("blind", validation_split=None))
    same_weights(tmp_path / "looked", tmp_path / "blind")
    assert not list((tmp_path / "blind").glob("reconstructions-*.png"))


def test_the_same_seed_gives_the_same_weights_and_another_others(settings, tmp_path):
    for run, seed in (("one", 0), ("again", 0), ("other", 1)):
        train(settings(run, seed=seed, validation_split=None))
    same_weights(tmp_path / "one", tmp_path / "again")
    with pytest.raises(AssertionError):
        same_weights(tmp_path / "one", tmp_path / "other")


def test_a_run_folder_holds_all_that_was_promised(settings, tmp_path, pictures):
    folder = train(settings("run"))
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} >= {
        "settings.toml",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "image_tokenizer",
        *(f"reconstructions-{step:07d}.png" for step in range(1, STEPS + 1)),
    }
    assert checkpoint.steps(run) == [6, STEPS]
    tokenizer = ImageTokenizer.load(folder)
    trainer = Trainer(settings("run"))
    trainer.restore(*checkpoint.load(run)[1:])
    images = [picture.image for picture in pictures]
    assert torch.equal(
        tokenizer.encode(images), ImageTokenizer(trainer.vqgan).encode(images)
    )
    assert train(settings("run")) == folder  # done already: nothing more to do
    assert len(metrics_of(run)) == STEPS


def test_parts_join_when_the_settings_say(settings, tmp_path):
    train(settings("run"))
    seen = {
        name: [
            record["step"] for record in metrics_of(tmp_path / "run") if name in record
        ]
        for name in (
            "loss/reconstruction",
            "loss/codebook",
            "loss/discriminator",
            "codebook/used",
            "codebook/revived",
        )
    }
    assert seen == {
        "loss/reconstruction": [1, 2, 3, 4, 5, 6, 7, 8],
        "loss/codebook": [4, 5, 6, 7, 8],
        "loss/discriminator": [7, 8],
        "codebook/used": [4, 6, 8],
        "codebook/revived": [4, 6],  # after 85 % of the steps codes stay put
    }


def test_it_learns(settings, pictures):
    trainer = Trainer(settings("run", steps=30, adversarial_from=None))
    stream = picture_stream(pictures, 16, 4, seed=0)
    losses = [
        trainer.step(step, next(stream))["loss/reconstruction"] for step in range(30)
    ]
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])


def test_a_checkpoint_of_another_shape_is_named(settings, monkeypatch):
    run = settings("run", steps=1, validation_split=None)
    train(run)
    other = image_tokenizer.preset("tiny")
    object.__setattr__(other := type(other)(**vars(other)), "latent", 24)
    monkeypatch.setattr(image_tokenizer, "preset", lambda name: other)
    with pytest.raises(CheckpointError, match=r"the checkpoint: \S+ is \[.*needs \["):
        train(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0 and batch 4; both must be at least 1"),
        ({"batch": 0}, "steps is 8 and batch 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, not above 0"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, changes, message):
    with pytest.raises(ConfigError, match=message):
        settings("run", **changes)


def test_an_unknown_preset_is_named_before_anything_is_written(settings, tmp_path):
    with pytest.raises(ConfigError, match="no image tokenizer preset 'tinny'"):
        train(settings("run", preset="tinny"))
    assert not (tmp_path / "run").exists()


def test_the_rate_warms_up_and_falls_to_two_percent(settings):
    long = settings("run", steps=1000, warmup_steps=10)
    rates = [share_of_peak(long, step) for step in range(1000)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, rel=1e-3)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.02, rel=1e-3)


def rows(stream, count):
    return [next(stream) for _ in range(count)]


def test_the_stream_resumes_anywhere(pictures):
    whole = rows(picture_stream(pictures, 16, 2, seed=0), 9)
    for taken in (1, 3, 4, 8):
        stream = picture_stream(pictures, 16, 2, seed=0)
        rows(stream, taken)
        state = json.loads(json.dumps(json.dumps(stream.get_state())))
        resumed = picture_stream(pictures, 16, 2, seed=0)
        resumed.set_state(json.loads(state))
        rest = rows(resumed, 9 - taken)
        assert all(map(np.array_equal, rest, whole[taken:]))


def test_an_epoch_shows_every_picture_once_and_some_mirrored(pictures):
    originals = [np.asarray(image_tokenizer.square(x.image, 16)) for x in pictures]
    stream = picture_stream(pictures, 16, 7, seed=0)
    mirrored = 0
    for _ in range(6):
        epoch = next(stream)
        assert (epoch.shape, epoch.dtype) == ((7, 16, 16, 3), np.uint8)
        found = []
        for row in epoch:
            for index, original in enumerate(originals):
                if np.array_equal(row, original):
                    found.append(index)
                elif np.array_equal(row, original[:, ::-1]):
                    found.append(index)
                    mirrored += 1
        assert sorted(found) == list(range(7))
    assert 8 <= mirrored <= 34  # of 42


def test_scale_is_to_tensor_of_the_same_pictures(pictures):
    images = [image_tokenizer.square(picture.image, 16) for picture in pictures]
    stacked = np.stack([np.asarray(image) for image in images])
    assert torch.equal(scale(stacked), to_tensor(images))


def test_a_sheet_has_what_was_decoded_below_each_original():
    colours = [(10 * index, 0, 0) for index in range(14)]
    pairs = [
        (Image.new("RGB", (4, 4), colour), Image.new("RGB", (4, 4), (*colour[:2], 255)))
        for colour in colours
    ]
    made = sheet(pairs)
    assert made.size == (12 * 4, 2 * 2 * 4)
    for index, colour in enumerate(colours):
        row, column = divmod(index, 12)
        place = (column * 4 + 1, row * 8 + 1)
        assert made.getpixel(place) == colour
        assert made.getpixel((place[0], place[1] + 4)) == (*colour[:2], 255)
    assert sheet(pairs[:1]).size == (4, 8)


def test_training_the_decoder_alone_leaves_every_code_as_it_was(settings):
    first = image_tokenizer.train(settings("first"))
    changes = {"start": str(first), "freeze": "codes"}
    second = image_tokenizer.train(settings("second", **changes))
    one, other = ImageTokenizer.load(first), ImageTokenizer.load(second)
    images = [picture.image for picture in drawings(3, 5)]
    codes = one.encode(images)
    assert torch.equal(codes, other.encode(images))
    before, after = one.vqgan.decode(codes), other.vqgan.decode(codes)
    assert not torch.equal(before, after)


def test_a_frozen_codebook_stays_while_the_encoder_learns(settings):
    first = image_tokenizer.train(settings("first"))
    changes = {"start": str(first), "freeze": "codebook", "muon_learning_rate": 0.02}
    second = image_tokenizer.train(settings("second", **changes))
    one, other = (ImageTokenizer.load(folder).vqgan for folder in (first, second))
    assert torch.equal(one.quantizer.codebook, other.quantizer.codebook)
    assert not torch.equal(one.to_code.weight, other.to_code.weight)


def test_going_on_from_a_start_quantises_from_the_first_step():
    on = ImageTokenizerTraining(data="d", run="r", start="first")
    assert on.unquantised_steps == 0
    assert ImageTokenizerTraining(data="d", run="r").unquantised_steps == 100


@pytest.mark.parametrize("freeze", ["codes", "codebook"])
def test_freezing_needs_a_start(settings, freeze):
    with pytest.raises(ConfigError, match=f"freeze is '{freeze}', which needs start"):
        settings("run", freeze=freeze)


def test_a_mixture_takes_tiers_in_their_shares(pictures):
    stream = picture_stream(pictures, 16, 4, 0, {"core": 3.0, "mono": 1.0})
    core = [np.asarray(square(pictures[number].image, 16)) for number in (0, 1)]
    own = [picture for one in core for picture in (one, one[:, ::-1])]
    seen = np.concatenate([next(stream) for _ in range(20)])
    of_core = sum(any(np.array_equal(x, one) for one in own) for x in seen)
    assert of_core == 60


def test_a_tier_that_is_not_there_is_named(pictures):
    with pytest.raises(ConfigError, match="no picture is of tier 'photo'"):
        picture_stream(pictures, 16, 4, 0, {"photo": 1.0})
