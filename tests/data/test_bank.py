from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from cm3leon.data.bank import bank_config, fill
from cm3leon.data.pictures import Pictures
from cm3leon.errors import DataError
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.retrieval.memory import BankWriter, MemoryBank
from cm3leon.training.bi_encoder import PRESETS, untrained


class Killed(Exception):
    pass


@pytest.fixture
def parts(tmp_path, tokenizers, noise_pictures):
    """Nine pictures of which the first is cut short, and what encodes them."""
    rows = [{"text": f"square {number}"} for number in range(9)]
    folder = noise_pictures(tmp_path / "pictures", rows, cut=0)
    torch.manual_seed(3)
    encoder = untrained(PRESETS["tiny"], tokenizers / "text_tokenizer.json")
    images = ImageTokenizer.load(tokenizers / "image_tokenizer")
    return Pictures.open(folder, cache=tmp_path / "cache"), encoder, images


def test_a_bank_that_was_killed_is_finished_to_the_same_bytes(parts, tmp_path):
    config = bank_config(*parts[1:])

    def kill(done, wanted):
        assert (done, wanted) == (3, 9)
        raise Killed

    with pytest.raises(Killed):
        fill(BankWriter(tmp_path / "on", config), *parts, size=3, on_progress=kill)
    added = {}
    for name in ("straight", "on"):
        writer = BankWriter(tmp_path / name, config)
        report = fill(writer, *parts, size=3)
        assert [problem.kind for problem in report.problems] == ["unreadable picture"]
        added[name] = report.added
        assert report.added + report.there == 8
        writer.finish()
    assert added == {"straight": 8, "on": 6}
    names = sorted(path.name for path in (tmp_path / "straight").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "on").iterdir())
    for name in names:
        files = [tmp_path / folder / name for folder in added]
        assert files[0].read_bytes() == files[1].read_bytes(), name


@pytest.fixture
def bank(parts, tmp_path):
    """A finished bank of eight pictures; its folder."""
    writer = BankWriter(tmp_path / "bank", bank_config(*parts[1:]))
    fill(writer, *parts)
    writer.finish()
    return tmp_path / "bank"


def test_what_is_there_is_counted_and_what_is_new_is_added(parts, bank, tmp_path):
    folder, config = tmp_path / "pictures", bank_config(*parts[1:])
    Image.new("RGB", (16, 16), "navy").save(folder / "new.png")
    (folder / "new.txt").write_text("a navy square")
    more = Pictures.open(folder, cache=tmp_path / "cache")
    writer = BankWriter(bank, config)
    found = fill(writer, more, *parts[1:])
    assert (found.added, found.there) == (1, 8)
    writer.finish()
    assert {one.key for one in MemoryBank.open(bank)} == set(more.ids()) - {"0.png"}


@pytest.mark.parametrize("what", ["picture", "caption"])
@pytest.mark.parametrize("finished", [True, False])
def test_another_picture_of_a_name_that_is_there_is_refused_before_any_is_added(
    parts, bank, tmp_path, noise_pictures, what, finished
):
    rows = [{"text": f"square {number}"} for number in range(10)]
    if what == "caption":
        rows[5] = {"text": "a circle"}
    folder = noise_pictures(tmp_path / "others", rows, cut=0)
    if what == "picture":
        image = Image.open(folder / "5.png")
        ImageOps.mirror(image).save(folder / "5.png")
    others = Pictures.open(folder, cache=tmp_path / "cache")
    writer = BankWriter(bank, bank_config(*parts[1:]))
    if not finished:
        one = replace(writer.lookup()("1.png"), key="more")
        writer.add([one], np.eye(1, parts[1].width))
    before = sorted(path.name for path in bank.iterdir())
    message = (
        f"{bank} holds '5.png' with another {what}; give the new file another name"
    )
    with pytest.raises(DataError, match=message) as caught:
        fill(writer, others, *parts[1:])
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in bank.iterdir()) == before
