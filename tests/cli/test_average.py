import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from cm3leon.cli.main import main


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run `average` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def act(*words):
        code = main(["average", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return act


@pytest.fixture
def other(tmp_path, model_folder):
    """The tiny model with every parameter twice as large."""
    folder = tmp_path / "other"
    shutil.copytree(model_folder, folder)
    file = folder / "model.safetensors"
    save_file({name: 2 * x for name, x in load_file(file).items()}, file)
    return folder


def test_a_mean_is_written_with_all_else_of_the_first_model(
    run, model_folder, other, tmp_path
):
    (other / "generation.json").write_text(json.dumps({"temperature": 0.3}))
    words = [other, model_folder, "--weight", "0.75", "--weight", "0.25"]
    assert run("mean", *words) == (0, "mean\n", "")
    drawn, first = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "mean", model_folder)
    )
    for name, tensor in first.items():
        assert drawn[name].dtype == tensor.dtype
        expected = (1.75 * tensor.float()).to(tensor.dtype)
        assert drawn[name].equal(expected)
    there = {p.relative_to(other) for p in other.rglob("*")}
    assert {
        p.relative_to(tmp_path / "mean") for p in (tmp_path / "mean").rglob("*")
    } == (there)
    assert json.loads((tmp_path / "mean" / "generation.json").read_text()) == {
        "temperature": 0.3
    }


def test_a_sharper_model_draws_what_the_model_drew_at_a_lower_temperature(
    model_folder, tmp_path
):
    import cm3leon
    from cm3leon.decoding.average import average

    sharper = average(tmp_path / "sharper", [model_folder], logit_scale=2.0)
    prompt = cm3leon.Document(cm3leon.Text("a red apple"))
    drawn = [
        cm3leon.load(folder, precision="fp32")
        .extend(prompt, cm3leon.GenerationOptions(seed=1, temperature=temperature))
        .images[0]
        .codes
        for folder, temperature in ((model_folder, 0.5), (sharper, 1.0))
    ]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mean"], "at least one model"),
        (
            ["mean", "{a}", "{a}", "--weight", "1"],
            "weights are given for 1 of 2 models",
        ),
        (["mean", "{a}", "--weight", "0.5"], "the weights sum to 0.5"),
        (["mean", "{a}", "--logit-scale", "0"], "must be above 0"),
        (["mean", "{a}", "nowhere"], "nowhere is no folder"),
        (["{a}", "{a}"], "is not an empty folder"),
    ],
)
def test_what_cannot_be_averaged_is_refused_in_one_line(
    run, model_folder, words, message
):
    code, _, said = run(*[word.format(a=model_folder) for word in words])
    assert code == 1
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json"])
def test_models_of_other_shape_or_ids_are_not_averaged(run, model_folder, other, name):
    table = json.loads((other / name).read_text())
    if name == "config.json":
        table["layers"] += 1
    (other / name).write_text(json.dumps(table))
    code, _, said = run("mean", model_folder, other)
    assert code == 1
    assert "differ in shape, ids or image tokenizer" in said
