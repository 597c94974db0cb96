import io

import pytest
import torch
from torch.testing import assert_close

from cm3leon.errors import ConfigError
from cm3leon.model.presets import preset
from cm3leon.model.transformer import Transformer
from cm3leon.training.optimizer import Optimizer, OptimizerConfig, share_of_peak

DECAYS = ["linear", "cosine", "constant"]
STEPS = 8


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_the_rate_rises_evenly_to_its_peak_and_never_again(decay, warmup):
    config = OptimizerConfig(warmup_steps=warmup, decay=decay)
    shares = [share_of_peak(config, step, 20) for step in range(20)]
    assert shares[:warmup] == [(step + 1) / warmup for step in range(warmup)]
    assert shares[warmup] == pytest.approx(1)
    after = shares[warmup:]
    assert after == sorted(after, reverse=True)
    assert min(after) >= config.final_share


@pytest.mark.parametrize("decay", DECAYS)
def test_the_rate_ends_at_its_final_share(decay):
    config = OptimizerConfig(warmup_steps=10, decay=decay, final_share=0.1)
    end = 1.0 if decay == "constant" else 0.1
    assert share_of_peak(config, 1_000_000, 1_000_000) == pytest.approx(end)
    assert share_of_peak(config, 2_000_000, 1_000_000) == pytest.approx(end)
    if decay != "constant":
        halfway = share_of_peak(config, 500_005, 1_000_000)
        assert halfway == pytest.approx(0.55, abs=1e-5)


def test_a_run_shorter_than_its_warm_up_only_rises():
    config = OptimizerConfig(warmup_steps=100)
    shares = [share_of_peak(config, step, 3) for step in range(3)]
    assert shares == [0.01, 0.02, 0.03]


def learner(kind, **settings):
    config = OptimizerConfig(kind=kind, warmup_steps=3, **settings)
    model = Transformer(
        preset("tiny", vocabulary_size=64, context=16), torch.Generator().manual_seed(0)
    )
    return model, Optimizer(model, config, STEPS)


def learn(model, optimizer, steps):
    norms = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(0, 64, (2, 17), generator=generator)
        logits = model(ids[:, :-1]).flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten()).backward()
        norms.append(optimizer.step(step))
    return norms


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("stop", [1, 3, 6])
def test_stopping_anywhere_is_going_straight_on(kind, stop):
    straight, optimizer = learner(kind)
    expected = learn(straight, optimizer, range(STEPS))
    model, optimizer = learner(kind)
    norms = learn(model, optimizer, range(stop))
    state = through_a_file(optimizer.state_dict())
    tensors = through_a_file(model.state_dict())
    resumed, optimizer = learner(kind)
    resumed.load_state_dict(tensors)
    optimizer.load_state_dict(state)
    norms += learn(resumed, optimizer, range(stop, STEPS))
    assert norms == expected
    for name, tensor in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor)


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_tables():
    model, optimizer = learner("muon")
    muon, adamw = optimizer.parts
    matrices = {id(w) for n, w in model.named_parameters() if n.startswith("blocks.")}
    tables = {id(model.embedding.weight), id(model.positions.weight)}
    assert {id(w) for group in muon.param_groups for w in group["params"]} == matrices
    assert {id(w) for group in adamw.param_groups for w in group["params"]} == tables


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_part_follows_the_schedule_from_its_own_peak(kind):
    model, optimizer = learner(kind, learning_rate=0.5, muon_learning_rate=0.25)
    peaks = [0.25, 0.5] if kind == "muon" else [0.5]
    for step in range(STEPS):
        learn(model, optimizer, [step])
        share = share_of_peak(optimizer.config, step, STEPS)
        rates = [part.param_groups[0]["lr"] for part in optimizer.parts]
        assert rates == [peak * share for peak in peaks]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_parameter_learns_and_gradients_are_forgotten(kind):
    model, optimizer = learner(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learn(model, optimizer, range(3))
    for name, weight in model.named_parameters():
        assert weight.grad is None
        assert not torch.equal(weight, before[name])


def gradients_at_step(clip, scale):
    """Norm told by the optimizer, and the gradients it then used."""
    model = torch.nn.Linear(3, 3, bias=False)
    optimizer = Optimizer(model, OptimizerConfig(clip=clip), STEPS)
    model.weight.grad = scale * torch.arange(1.0, 10).view(3, 3)
    used = []
    optimizer.parts[0].register_step_pre_hook(
        lambda *_: used.append(model.weight.grad.clone())
    )
    return optimizer.step(0), used[0]


@pytest.mark.parametrize("scale", [0.001, 1.0])
def test_the_norm_is_told_before_clipping_and_then_cut(scale):
    whole = scale * torch.arange(1.0, 10).view(3, 3)
    norm, used = gradients_at_step(1.0, scale)
    assert norm == pytest.approx(whole.norm().item())
    assert_close(used, whole / max(1.0, whole.norm().item()), rtol=1e-5, atol=1e-8)
    norm, used = gradients_at_step(0.0, scale)
    assert norm == pytest.approx(whole.norm().item())
    assert_close(used, whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0, not above 0"),
        ({"muon_learning_rate": -1.0}, "muon_learning_rate is -1.0, not above 0"),
        ({"final_share": 1.5}, r"final_share is 1.5, outside \[0, 1\]"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        OptimizerConfig(**settings)


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
def test_a_second_epoch_starts_again_from_its_share(decay):
    shape = {"warmup_steps": 2, "decay": decay, "final_share": 0.1}
    one = OptimizerConfig(**shape)
    two = OptimizerConfig(**shape, second_start=10, second_share=0.5)
    first = [share_of_peak(one, step, 10) for step in range(10)]
    shares = [share_of_peak(two, step, 20) for step in range(20)]
    assert shares[:10] == first
    assert shares[10] == pytest.approx(0.5)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    if decay != "constant":
        assert shares[10] > shares[9]
        assert share_of_peak(two, 20, 20) == pytest.approx(0.1)


def test_a_second_epoch_within_the_warm_up_is_refused():
    with pytest.raises(ConfigError, match="second_start is 5, within the 9 steps"):
        OptimizerConfig(warmup_steps=9, second_start=5)
