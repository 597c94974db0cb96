import shutil

import pytest

from cm3leon import Document, GenerationOptions, Text, load
from cm3leon.cli.drawn import Drawing
from cm3leon.errors import CheckpointError


def test_the_outline_asks_as_the_engine_does_and_needs_no_weights(
    model_folder, tmp_path
):
    without = tmp_path / "model"
    weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(model_folder, without, ignore=weights)
    outline, engine = Drawing(model=without).outline(), load(model_folder)
    assert outline.pixels == engine.image_tokenizer.pixels
    assert len(outline.picture.codes) == engine.codec.codes_per_image
    assert outline.options == engine.options
    options = GenerationOptions(image_guidance_scale=2.0)
    asked = Document(outline.picture, Text("a red apple"))
    (prepared,) = engine.prepare([asked], options)
    assert outline.writer.extend(asked, "image", options) == prepared.prompt


@pytest.mark.parametrize("file", ["config.json", "image_tokenizer/config.json"])
def test_a_model_without_its_settings_has_no_outline(model_folder, tmp_path, file):
    shutil.copytree(model_folder, tmp_path / "model")
    (tmp_path / "model" / file).unlink()
    said = r"has no config\.json|image_tokenizer holds no image tokenizer"
    with pytest.raises(CheckpointError, match=said):
        Drawing(model=tmp_path / "model").outline()
