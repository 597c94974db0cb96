import pytest
from safetensors.torch import load_file

from cm3leon.cli import main as cli


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Import something in an empty folder: exit code, stdout, stderr."""

    def call(*words):
        capsys.readouterr()  # what fixtures said
        code = cli.main(["import", *map(str, words)])
        return code, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    return call


def test_without_a_place_there_is_only_the_report(run, public_meta, tmp_path):
    code, out, err = run("chameleon", public_meta())
    assert (code, err) == (0, "")
    for shown in (
        "Meta, 2 file(s) of weights",
        "bfloat16",
        "tensors unused   1 (rope.freqs)",
        "tensors missing  0",
        "<racm3:break> 69, <eoss> 68, <s> 0, </s> 2, <pad> 1, <reserved08706> 70",
        "code 0 … 63 is id 4 … 67",
        "16 x 16 pixels, 16 codes each; encoder and decoder",
    ):
        assert shown in out
    assert list(tmp_path.iterdir()) == []


def test_a_public_model_becomes_a_folder_that_info_shows(
    run, public_transformers, public_tokenizer, capsys
):
    theirs = public_transformers()
    words = ("chameleon", theirs, "--tokenizer", public_tokenizer, "--to", "tiny")
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert out.endswith("\ntiny\n")
    assert load_file("tiny/model.safetensors")["head.weight"].shape == (352, 64)
    assert cli.main(["info", "--model", "tiny"]) == 0
    assert "2 layers, width 64, 4 heads" in capsys.readouterr().out
    code, _, err = run(*words)
    assert code == 1
    assert err.endswith("tiny is not an empty folder; name a new one or remove it\n")


def test_an_image_tokenizer_is_read_and_written(run, public_tokenizer):
    words = ("vqgan", public_tokenizer / "vqgan.ckpt", public_tokenizer / "vqgan.yaml")
    code, out, err = run(*words, "--to", "pictures")
    assert (code, err) == (0, "")
    assert "16 x 16 pixels, 16 codes each" in out
    assert load_file("pictures/model.safetensors")["quantizer.codebook"].shape == (
        64,
        8,
    )
    code, _, err = run(*words, "--to", "pictures")
    assert (code, err) == (
        1,
        "cm3leon: pictures exists; name a new folder or remove it\n",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chameleon", "."], "cm3leon: . holds neither config.json nor params.json; "),
        (["vqgan", "a.ckpt", "a.yaml"], "cm3leon: a.yaml is missing or damaged ("),
    ],
)
def test_what_is_no_model_is_one_line(run, words, message):
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert err.startswith(message)
    assert err.count("\n") == 1
