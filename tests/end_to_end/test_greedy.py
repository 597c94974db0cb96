"""Greedy ids of the shipped model: with a cache, without, and by transformers."""

import os

import pytest
import torch

from cm3leon import load
from cm3leon.decoding.folder import shipped
from cm3leon.decoding.interchange import export_transformers
from cm3leon.decoding.lanes import Lane, Lanes, Room

STEPS = 200


@pytest.fixture(scope="module")
def engine():
    return load(precision="fp32")


@pytest.fixture(scope="module")
def prompt(engine):
    codec = engine.codec
    words = codec.text_tokenizer.encode("a red apple")
    v = codec.vocabulary
    return [v.eos, *(v.text.start + word for word in words), v.break_]


@pytest.fixture(scope="module")
def greedy(engine, prompt):
    """Without a cache: the whole row is read again for each id."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(STEPS):
            ids.append(int(engine.model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("before", [0, 1, 3], ids="lanes with it: {}".format)
def test_a_cache_changes_nothing(engine, prompt, greedy, before):
    model, count = engine.model, len(prompt)
    lane = Lane(tuple(prompt), tuple(range(count)), count)
    others = [Lane(tuple(prompt[:n]), tuple(range(n)), n) for n in (2, 3, 1)[:before]]
    head = torch.arange(model.config.vocabulary_size)
    drawn = []
    with torch.inference_mode():
        requests = [[one] for one in (*others, lane)]
        lanes = Lanes(model, Room.of(model, requests, STEPS), head)
        lanes.join(requests)
        ids = lanes.last
        for _ in range(STEPS):
            ids = lanes.read(ids).argmax(-1)
            drawn.append(int(ids[-1]))
    assert drawn == greedy


def test_transformers_draws_the_same_ids(prompt, greedy, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    exported = export_transformers(shipped(), tmp_path / "opt")
    model = transformers.OPTForCausalLM.from_pretrained(exported)
    made = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=STEPS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=None,
    )
    assert made[0, len(prompt) :].tolist() == greedy
