"""What stands beside the weights in a folder that transformers reads.

Pure functions from what a model folder holds to the contents of each file.
"""

from collections.abc import Mapping
from typing import Any

from cm3leon.model.transformer import TransformerConfig
from cm3leon.tokens.vocabulary import Vocabulary


def model_tokenizer(text: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """A `tokenizer.json` that gives the ids the model reads.

    Ours counts text ids from 0 and knows no specials; here they start where the
    vocabulary has them, and each special is a token of its own. Image codes are left
    out: their ids are `vocabulary.image`, which no text is.

    Args:
        text: what `text_tokenizer.json` holds.
        vocabulary: places of text and specials.
    """
    start = vocabulary.text.start
    tokens = {token: start + id for token, id in text["model"]["vocab"].items()}
    spelled: dict[int, str] = {}
    for name, id in vocabulary.names.items():
        own = name if name not in tokens else f"<special:{id}>"  # a text token's name
        spelled.setdefault(id, own)
    # A special takes its id from the model's own table, so it stands there as well.
    tokens |= {name: id for id, name in spelled.items()}
    added = [
        {
            "id": id,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for id, name in sorted(spelled.items())
    ]
    model = text["model"] | {"vocab": tokens}
    return {**text, "added_tokens": added, "model": model}


def tokenizer_settings(context: int) -> dict[str, Any]:
    """The `tokenizer_config.json` beside it, for a model of that context."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<eos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "split_special_tokens": True,  # text that spells `<eos>` stays text
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }


def generation_settings(
    options: Mapping[str, Any], vocabulary: Vocabulary
) -> dict[str, Any]:
    """The `generation_config.json`: what of our options has the same meaning there.

    Guidance has not: theirs compares with the prompt's last id, ours with `<mask>`.

    Args:
        options: what `generation.json` holds.
        vocabulary: the specials' ids.
    """
    settings: dict[str, Any] = {
        "bos_token_id": vocabulary.eos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
    }
    if options.get("temperature", 1.0) == 0:
        return settings | {"do_sample": False}
    drawn = {name: options.get(name) for name in ("temperature", "top_p", "top_k")}
    given = {name: value for name, value in drawn.items() if value is not None}
    return settings | {"do_sample": True, "top_k": 0} | given


def card(
    config: TransformerConfig, slot: int, vocabulary: Vocabulary, model_card: str
) -> str:
    """The README.md: what the folder is, and how a picture is drawn from it.

    Args:
        config: the model's shape.
        slot: pictures begin at multiples of it; 0: anywhere.
        vocabulary: places of text, codes and specials.
        model_card: the file that says more.
    """
    start, stop = vocabulary.image.start, vocabulary.image.stop
    place = f"a multiple of {slot}" if slot else "the next position, whatever it is"
    given = f"[*range(len(ids) - 1), {slot} - 1]" if slot else "[*range(len(ids))]"
    return f"""---
library_name: transformers
pipeline_tag: text-to-image
---
# A CM3Leon transformer as OPT

Written by `cm3leon export --to transformers`; `{model_card}`, if there is one, says
what the model was trained on and under which licences. It is an OPT without biases and
learned norms: width {config.width}, {config.layers} blocks, {config.heads} heads,
context {config.context}, {config.parameters / 1e6:.1f} M parameters.

Text ids come from `tokenizer.json`, the specials among them by name. The image codes
0 to {stop - start - 1} are the ids {start} to {stop - 1}. A picture begins at
{place}. So a picture of some words, up to {slot or config.context} ids, is drawn by

```python
import torch
from transformers import AutoTokenizer, OPTForCausalLM

from cm3leon import ImageTokenizer

model = OPTForCausalLM.from_pretrained(".")
words = AutoTokenizer.from_pretrained(".")
pictures = ImageTokenizer.load("image_tokenizer")

opens, turns = words.convert_tokens_to_ids(["<eos>", "<break>"])
ids = [opens, *words("a red apple").input_ids, turns]
drawn = model.generate(
    torch.tensor([ids]),
    attention_mask=torch.ones(1, len(ids), dtype=torch.long),
    position_ids=torch.tensor([{given}]),
    max_new_tokens=pictures.codes_per_image,
    prefix_allowed_tokens_fn=lambda *_: list(range({start}, {stop})),
)
pictures.decode(drawn[:, len(ids) :] - {start})[0].save("apple.png")
```

This draws without guidance. The way back: `cm3leon export --from transformers`.
"""
