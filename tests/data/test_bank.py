import pytest
import torch

from cm3leon.data.bank import bank_config, fill
from cm3leon.data.pictures import Pictures
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.retrieval.memory import BankWriter
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
        added[name] = report.good
        writer.finish()
    assert added == {"straight": 8, "on": 6}
    names = sorted(path.name for path in (tmp_path / "straight").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "on").iterdir())
    for name in names:
        files = [tmp_path / folder / name for folder in added]
        assert files[0].read_bytes() == files[1].read_bytes(), name
