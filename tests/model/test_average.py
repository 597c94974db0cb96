import pytest
import torch

from cm3leon.model.average import mean, scale_logits
from cm3leon.model.presets import preset
from cm3leon.model.transformer import Transformer


def parameters(seed):
    """Of a tiny transformer in which every weight matters."""
    model = Transformer(preset("tiny", vocabulary_size=100))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.1, generator=generator)
    return model.state_dict()


def test_the_mean_is_linear_and_leaves_its_models_alone():
    a, b = parameters(0), parameters(1)
    before = {name: x.clone() for name, x in a.items()}
    drawn = mean([(a, 0.25), (b, 0.75)])
    for name in a:
        torch.testing.assert_close(drawn[name], 0.25 * a[name] + 0.75 * b[name])
        assert torch.equal(a[name], before[name])


def test_a_model_averaged_with_itself_is_itself():
    a = parameters(0)
    same = mean([(a, 0.5), (a, 0.5)])
    assert all(torch.equal(same[name], a[name]) for name in a)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.3])
def test_scaled_parameters_scale_the_logits(factor):
    ids = torch.arange(40).reshape(2, 20)
    model = Transformer(preset("tiny", vocabulary_size=100)).eval()
    model.load_state_dict(parameters(2))
    with torch.inference_mode():
        before = model(ids)
        model.load_state_dict(scale_logits(model.state_dict(), factor))
        torch.testing.assert_close(model(ids), factor * before, rtol=1e-2, atol=5e-3)
