import json

from cm3leon.cli import main as cli


def test_a_model_is_shown_as_a_table(call):
    code, out, err = call("info")
    assert (code, err) == (0, "")
    for shown in (
        "tiny",
        "apache-2.0",
        "2 layers, width 64, 4 heads",
        "128 ids, pictures at multiples of 32",
        "64 image codes",
        "16 x 16 pixels, 16 codes each",
        "model.safetensors",
        "kB",
    ):
        assert shown in out


def test_json_has_the_same_as_numbers(call, model_folder):
    code, out, _ = call("info", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["layers"], found["width"], found["context"]) == (2, 64, 128)
    size = (model_folder / "model.safetensors").stat().st_size
    assert found["files"]["model.safetensors"] == size


def test_a_folder_without_a_model_is_one_line(tmp_path, capsys):
    assert cli.main(["info", "--model", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "has no config.json" in err
    assert err.count("\n") == 1
