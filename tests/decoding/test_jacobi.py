"""Several codes in a pass: the same distribution as one by one, in fewer passes."""

from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch

import cm3leon
from cm3leon.decoding import drawing, jacobi
from cm3leon.decoding.constraints import Constraint
from cm3leon.decoding.lanes import Lane, Lanes
from cm3leon.decoding.options import GenerationOptions
from cm3leon.decoding.prompt import Prompt
from cm3leon.decoding.sampling import pick, probabilities
from cm3leon.model.transformer import Transformer, TransformerConfig
from cm3leon.randomness import torch_generator
from cm3leon.tokens.document import Document, Hole, Image, Text

START, CODES, PLACES = 20, 3, 5  # of which all 243 pictures are looked at
LIMIT = 1e-4  # chance of a false alarm, had the seed not been fixed
ALONE = GenerationOptions(guidance_scale=1.0)
GUIDED = GenerationOptions(guidance_scale=2.0)
NARROWED = replace(GUIDED, temperature=1.3, top_p=0.9)
CONTRASTED = replace(GUIDED, guidance_scale=1.0, contrast_k=2, contrast_alpha=0.3)
EDITING = replace(GUIDED, image_guidance_scale=1.5, top_k=2)
PROMPTS = [Document(Text("a red apple")), Document(Text("b"))]
PICTURE = Image(codes=tuple(range(16)))


@pytest.fixture(scope="module")
def smallest():
    """A transformer in which every weight matters and that is not sure of anything."""
    config = TransformerConfig(
        vocabulary_size=32, context=16, width=16, layers=2, heads=2
    )
    model = Transformer(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.normal_(std=0.3, generator=generator)
    return model


def codes(documents):
    return [document.images[-1].codes for document in documents]


def small(options, known=None):
    """A picture of few places and codes."""
    # as in infilling, the lanes end in different ids
    conditional, unconditional, nothing = (Lane((id,), (0,), 1) for id in (2, 3, 4))
    return Prompt(
        conditional,
        unconditional if options.is_guided else None,
        Constraint("image", range(START, START + CODES)),
        PLACES,
        {place: START + code for place, code in (known or {}).items()},
        nothing if options.image_guidance_scale is not None else None,
    )


def exact(model, prompt, options):
    """The probability of every picture, from plain passes over it."""
    every = torch.tensor(list(product(range(CODES), repeat=PLACES)))
    scored = []
    for one in prompt.lanes:
        ids = torch.tensor(one.ids).expand(len(every), -1)
        logits = model(torch.cat([ids, every + START], 1), head=prompt.constraint.ids)
        scored.append(logits[:, len(one.ids) - 1 : -1].flatten(0, 1))
    before = torch.arange(PLACES).repeat(len(every)) / PLACES
    p = probabilities(drawing._combined(scored, options, before), options)
    p = p.view(*every.shape, CODES).gather(2, every[..., None])[..., 0]
    for place, id in prompt.known.items():
        p[:, place] = (every[:, place] == id - START).double()
    return p.prod(1)


def drawn(model, prompt, options, size=4000):
    """How often every picture is drawn."""
    chances = [torch_generator(0, "draw", number) for number in range(size)]
    rows = drawing.draw(model, [prompt] * size, options, chances)
    digits = CODES ** torch.arange(PLACES).flip(0)
    numbers = ((torch.tensor(rows) - START) * digits).sum(1)
    return numbers.bincount(minlength=CODES**PLACES)


def p_value(counts, shares):
    """Of Pearson's test; pictures expected less than five times are one."""
    assert counts[shares == 0].sum() == 0, "a picture was drawn that cannot be"
    expected = shares * counts.sum()
    often = expected >= 5
    seen = torch.cat([counts[often], counts[~often].sum()[None]])
    wanted = torch.cat([expected[often], expected[~often].sum()[None]])
    seen, wanted = seen[wanted > 0].double(), wanted[wanted > 0]
    statistic = ((seen - wanted) ** 2 / wanted).sum()
    free = torch.tensor((len(wanted) - 1) / 2).double()
    assert len(wanted) > 10, "too little to tell apart"
    return float(torch.special.gammaincc(free, statistic / 2))


@pytest.mark.parametrize(
    ("options", "window"),
    [
        (ALONE, 3),
        (GUIDED, 2),
        (GUIDED, 3),
        (NARROWED, 3),
        (CONTRASTED, 3),
        (EDITING, 9),
        (replace(GUIDED, guidance_from=0.3, guidance_until=0.6), 3),
    ],
    ids=["alone", "guided by 2", "guided by 3", "top-p", "CD-K", "edit", "in part"],
)
def test_pictures_are_as_frequent_as_the_model_says(smallest, options, window):
    options = replace(options, window=window)
    prompt = small(options)
    shares = exact(smallest, prompt, options)
    assert p_value(drawn(smallest, prompt, options), shares) > LIMIT


@pytest.mark.parametrize("known", [{0: 2}, {1: 0, 2: 1}], ids=str)
def test_codes_between_known_ones_are_as_frequent(smallest, known):
    options = replace(GUIDED, window=3)
    prompt = small(options, known)
    shares = exact(smallest, prompt, options)
    assert p_value(drawn(smallest, prompt, options), shares) > LIMIT


def always_stays(drafts, q, p, chance):
    return drafts, torch.ones_like(drafts, dtype=torch.bool)


def drawn_anew_from_all(drafts, q, p, chance):
    new, stay = renew(drafts, q, p, chance)
    return torch.where(stay, new, pick(p.log(), chance[:, 1])), stay


def with_one_chance(drafts, q, p, chance):
    return renew(drafts, q, p, chance[:, :1].expand(-1, 2))


renew = jacobi.renew


@pytest.mark.parametrize("rule", [always_stays, drawn_anew_from_all, with_one_chance])
def test_the_test_notices_a_wrong_rule(smallest, monkeypatch, rule):
    options = replace(GUIDED, window=3)
    prompt = small(options)
    monkeypatch.setattr(jacobi, "renew", rule)
    counts = drawn(smallest, prompt, options)
    assert p_value(counts, exact(smallest, prompt, options)) < LIMIT


def test_renewed_drafts_are_distributed_as_p_and_stay_as_often_as_they_can():
    random = torch.Generator().manual_seed(0)
    q, p = torch.tensor([[0.6, 0.3, 0.1, 0.0], [0.2, 0.3, 0.0, 0.5]]).double()
    count = 20_000
    drafts = torch.multinomial(q, count, replacement=True, generator=random)
    chance = torch.rand(count, 2, generator=random, dtype=torch.float64)
    many = [one.expand(count, -1) for one in (q, p)]
    new, stay = renew(drafts, *many, chance)
    shares = new.bincount(minlength=4) / count
    torch.testing.assert_close(shares.double(), p, atol=0.015, rtol=0)
    assert abs(stay.double().mean() - torch.minimum(p, q).sum()) < 0.015
    same, stay = renew(drafts, many[0], many[0], chance)
    assert torch.equal(same, drafts)
    assert stay.all()


@pytest.mark.parametrize("window", [2, 5, 16, 40])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_greedy_is_greedy_one_by_one(engine, window, scale):
    options = GenerationOptions(temperature=0.0, guidance_scale=scale, seed=0)
    near = [[Document(Text("a green apple, and more words"), PICTURE)], []]
    wanted = engine.extend(PROMPTS, options, neighbours=near)
    options = replace(options, window=window)
    assert engine.extend(PROMPTS, options, neighbours=near) == wanted
    hole = Document(Text("a red apple"), Hole("image"), Text("and a car"))
    wanted = engine.fill(hole, replace(options, window=1))
    assert engine.fill(hole, options) == wanted
    picture = Document(Text("a red apple"), PICTURE)
    wanted = engine.redraw([picture], [[3, 5, 6]], replace(options, window=1))
    assert engine.redraw([picture], [[3, 5, 6]], options) == wanted


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_batch_draws_what_one_by_one_draws(engine, scale):
    options = GenerationOptions(guidance_scale=scale, top_p=0.95, window=4)
    documents, seeds = [*PROMPTS, PROMPTS[0]], [5, 6, 7]
    together = engine.extend(documents, options, seeds=seeds)
    alone = [
        engine.extend(document, replace(options, seed=seed))
        for document, seed in zip(documents, seeds, strict=True)
    ]
    assert together == alone
    assert len(set(codes(together))) == 3


def test_what_is_filled_next_does_not_depend_on_the_batch(plain, options):
    """A request that has ended leaves its stream alone."""
    options = replace(options, window=4, temperature=2.0, max_text=4)
    documents = [
        Document(Text(text), Hole("image"), Text("or"), Hole())
        for text in ("a red apple", "b", "a blue car")
    ]
    seeds = [5, 6, 7]
    together = plain.fill(documents, options, seeds=seeds)
    alone = [
        plain.fill(document, options, seeds=[seed])
        for document, seed in zip(documents, seeds, strict=True)
    ]
    assert together == alone


HIDDEN = [[5], [5, 6, 9, 10], [0, 15], list(range(1, 16))]


def test_redrawing_keeps_known_codes_in_a_batch_as_alone(engine, options):
    options = replace(options, window=4)
    document = Document(Text("a red apple"), PICTURE)
    seeds = [1, 2, 3, 4]
    together = engine.redraw([document] * 4, HIDDEN, options, seeds=seeds)
    for after, cells, seed in zip(codes(together), HIDDEN, seeds, strict=True):
        changed = {i for i in range(16) if after[i] != PICTURE.codes[i]}
        assert changed <= set(cells)
        [alone] = engine.redraw([document], [cells], options, seeds=[seed])
        assert codes([alone]) == [after]
    assert len({*codes(together), PICTURE.codes}) == 5


@pytest.fixture
def passes(monkeypatch):
    """How many ids each lane read in each pass."""
    seen = []
    read = Lanes.read_ahead

    def counted(self, ids):
        seen.append(ids.shape[1])
        return read(self, ids)

    monkeypatch.setattr(Lanes, "read_ahead", counted)
    return seen


@pytest.mark.parametrize("window", [2, 5, 40])
def test_there_are_no_more_passes_than_codes(engine, options, passes, window):
    for number in range(8):
        passes.clear()
        engine.extend(PROMPTS[0], replace(options, seed=number, window=window))
        assert len(passes) <= 16
        assert max(passes) == min(window, 16)


def test_the_shipped_model_needs_fewer_passes_than_codes(passes):
    engine = cm3leon.load()
    options = replace(engine.options, neighbours=0, seed=0, window=8)
    (picture,) = engine.extend(PROMPTS[0], options).images
    assert len(passes) < len(picture.codes) / 1.5


def test_words_are_drawn_one_by_one(plain, options, passes):
    document = Document(Hole(), PICTURE)
    said = plain.fill(document, replace(options, window=4))
    assert said == plain.fill(document, options)
    assert not passes


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_stream_shows_rows_as_they_come_and_then_the_picture(engine, options, rows):
    """A picture after each pass that completes some rows, of all that is drawn then."""
    options = replace(options, window=6, guidance_scale=2.0)
    done = []
    whole = engine.extend(
        PROMPTS[0], options, on_progress=lambda *step: done.append(step)
    )
    counts = [count for count, most in done if most == 16]
    assert len(counts) == len(done) < 16  # some passes drew several
    assert counts == sorted(set(counts))
    assert counts[-1] == 16
    every = 4 * rows
    wanted = [
        count
        for before, count in pairwise([0, *counts])
        if count // every > before // every or count == 16
    ]
    drawn, white = whole.images[-1].codes, engine._white
    grids = [[*drawn[:count], *white[count:]] for count in wanted]
    shown = list(engine.stream(PROMPTS[0], options, rows=rows))
    for picture, grid in zip(shown, grids, strict=True):
        (pixels,) = engine.image_tokenizer.decode(torch.tensor([grid]))
        assert picture.pixels.tobytes() == pixels.tobytes()
    assert [picture.codes for picture in shown] == [None] * (len(shown) - 1) + [drawn]
