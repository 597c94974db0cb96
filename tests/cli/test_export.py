import pytest
from safetensors.torch import load_file

from cm3leon.cli.main import main


def test_there_and_back_is_the_same_model(call, model_folder):
    assert call("export", "--to", "transformers", "opt") == (0, "opt\n", "")
    assert call("export", "--from", "transformers", "opt", "back") == (0, "back\n", "")
    first, second = (
        load_file(f"{folder}/model.safetensors") for folder in (model_folder, "back")
    )
    assert first.keys() == second.keys()
    assert all(bool((first[name] == second[name]).all()) for name in first)


def test_what_is_there_is_not_overwritten(call):
    assert call("export", "--to", "transformers", "opt")[0] == 0
    code, out, said = call("export", "--to", "transformers", "opt")
    assert (code, out) == (1, "")
    assert said.startswith("cm3leon: ")
    assert said.endswith("opt is not an empty folder; name a new one or remove it\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["opt"], "Give either --to transformers or --from transformers."),
        (["a", "b", "--to", "transformers", "--from", "transformers"], "Give either"),
        (["a", "--from", "transformers"], "--from needs two folders"),
        (["a", "b", "--to", "transformers"], "--to needs one folder"),
        (["--to", "transformers"], "FOLDER"),
        (["a", "--to", "gguf"], "gguf"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(words, message, capsys, tmp_path):
    assert main(["export", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_folder_that_holds_no_opt_is_named(call):
    code, _, said = call("export", "--from", "transformers", "nowhere", "back")
    assert code == 1
    assert "nowhere holds no model" in said
    assert said.count("\n") == 1
