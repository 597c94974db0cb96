import torch

from cm3leon.decoding.constraints import Constraint
from cm3leon.tokens.codec import Codec
from cm3leon.tokens.vocabulary import Vocabulary


def test_a_picture_is_image_codes_and_nothing_else(codec, vocabulary):
    constraint = Constraint.image(codec)
    assert constraint.ids.tolist() == list(vocabulary.image)
    logits = torch.randn(2, len(vocabulary.image))
    assert torch.equal(constraint.restrict(logits, [True, False]), logits)


def test_text_is_text_ids_until_a_stop(codec, vocabulary):
    extending = Constraint.extending(codec).ids.tolist()
    assert extending == [*vocabulary.text, vocabulary.break_, vocabulary.eos]
    filling = Constraint.filling(codec).ids.tolist()
    assert filling == [*vocabulary.text, vocabulary.end]


def test_text_ids_the_tokenizer_does_not_have_are_not_drawn(text_tokenizer):
    roomy = Codec(Vocabulary.own(500, 64), text_tokenizer, 16)
    first = roomy.vocabulary.text.start
    drawn = Constraint.filling(roomy).ids.tolist()[:-1]
    assert drawn == list(range(first, first + text_tokenizer.size))


def test_a_stop_is_never_first(codec):
    constraint = Constraint.extending(codec)
    logits = torch.zeros(2, len(constraint.ids))
    first = constraint.restrict(logits, [False, True])
    assert first[1, -2:].isneginf().all()
    assert torch.equal(first[1, :-2], logits[1, :-2])
    assert torch.equal(first[0], logits[0])
    assert torch.equal(constraint.restrict(logits, [False, False]), logits)
    assert torch.equal(logits, torch.zeros_like(logits))
