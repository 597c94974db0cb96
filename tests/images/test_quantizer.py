import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from cm3leon.images.quantizer import Quantizer, QuantizerConfig

SIZE, WIDTH = 12, 4
FORMS = [
    (learning, normalise)
    for learning in ("gradient", "average")
    for normalise in (False, True)
]


def quantizer_of(learning="gradient", normalise=False, **settings):
    torch.manual_seed(0)
    config = QuantizerConfig(
        codebook_size=SIZE,
        code_width=WIDTH,
        learning=learning,
        normalise=normalise,
        **settings,
    )
    quantizer = Quantizer(config)
    # as a few steps of training would leave it: far apart, not near 0
    quantizer._place(torch.arange(SIZE), torch.randn(SIZE, WIDTH))
    return quantizer


@pytest.fixture(params=FORMS, ids=str)
def quantizer(request):
    return quantizer_of(*request.param)


@pytest.fixture
def grid():
    return torch.randn(2, WIDTH, 3, 5, generator=torch.Generator().manual_seed(1))


def flat(grid):
    return grid.permute(0, 2, 3, 1).flatten(0, 2)


def test_a_vector_gets_the_nearest_code(quantizer, grid):
    vectors = quantizer.project(flat(grid))
    distances = torch.cdist(vectors, quantizer.project(quantizer.codebook))
    assert torch.equal(quantizer.nearest(vectors), distances.argmin(-1))


def test_quantising_a_codebook_vector_gives_its_code(quantizer):
    codes = torch.arange(SIZE)
    vectors = quantizer.lookup(codes)
    assert torch.equal(quantizer.nearest(vectors), codes)


def test_quantising_twice_is_quantising_once(quantizer, grid):
    quantizer.eval()
    once = quantizer(grid)
    twice = quantizer(once.vectors.detach())
    assert torch.equal(twice.codes, once.codes)
    assert_close(twice.vectors, once.vectors)
    assert once.codes.shape == (2, 3, 5)
    assert once.vectors.shape == grid.shape
    assert_close(flat(once.vectors), quantizer.lookup(once.codes.flatten()))


def test_on_the_sphere_lengths_do_not_matter(grid):
    quantizer = quantizer_of(normalise=True).eval()
    assert torch.equal(quantizer(grid).codes, quantizer(7 * grid).codes)
    lengths = quantizer(grid).vectors.norm(dim=1)
    assert_close(lengths, torch.ones_like(lengths))


def test_the_gradient_passes_straight_through():
    quantizer = quantizer_of()
    grid = torch.randn(1, WIDTH, 2, 2, requires_grad=True)
    wish = torch.randn_like(grid)
    (quantizer(grid).vectors * wish).sum().backward()
    assert_close(grid.grad, wish)
    assert quantizer.codebook.grad is None or not quantizer.codebook.grad.any()


@pytest.mark.parametrize(("commitment", "pull"), [(0.25, 1.0), (1.0, 0.25)])
def test_commitment_and_codebook_terms_are_the_formulas(grid, commitment, pull):
    quantizer = quantizer_of(commitment=commitment, codebook_weight=pull)
    grid.requires_grad_(True)
    out = quantizer(grid)
    z, e = flat(grid.detach()), quantizer.codebook.detach()[out.codes.flatten()]
    squared = ((z - e) ** 2).mean()
    assert_close(out.loss, 1.25 * squared)
    out.loss.backward()
    # sg: the encoder is pulled by the commitment alone, a code by its vectors alone
    assert_close(flat(grid.grad), commitment * 2 * (z - e) / z.numel())
    pulled = torch.zeros(SIZE, WIDTH).index_add_(0, out.codes.flatten(), e - z)
    assert_close(quantizer.codebook.grad, pull * 2 * pulled / z.numel())


def test_with_averages_the_loss_is_the_commitment_alone(grid):
    quantizer = quantizer_of("average").eval()
    out = quantizer(grid)
    e = quantizer.codebook[out.codes.flatten()]
    assert_close(out.loss, 0.25 * ((flat(grid) - e) ** 2).mean())
    assert not list(quantizer.parameters())


@pytest.mark.parametrize("normalise", [False, True])
def test_averages_are_the_formulas_by_hand(grid, normalise):
    quantizer = quantizer_of("average", normalise, decay=0.9).train()
    z = quantizer.project(flat(grid))
    before = quantizer.codebook.clone()
    codes = quantizer.nearest(z)
    out = quantizer(grid)
    assert torch.equal(out.codes.flatten(), codes)
    for code in range(SIZE):
        mine = z[codes == code]
        count = 0.9 * 1 + 0.1 * len(mine)
        total = 0.9 * before[code] + 0.1 * mine.sum(0)
        assert_close(quantizer.counts[code], torch.tensor(count))
        assert_close(quantizer.sums[code], total)
        mean = total / count
        assert_close(
            quantizer.codebook[code], F.normalize(mean, dim=0) if normalise else mean
        )


def test_averages_rest_outside_of_training(grid):
    quantizer = quantizer_of("average").eval()
    before = {name: x.clone() for name, x in quantizer.state_dict().items()}
    quantizer(grid)
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_averages_settle_on_the_mean_of_the_vectors():
    quantizer = quantizer_of("average", decay=0.5).train()
    middle = quantizer.codebook[3].clone() + 0.01
    around = middle + 0.01 * torch.randn(1, 2, 2, WIDTH)
    for _ in range(40):
        quantizer(around.permute(0, 3, 1, 2))
    assert_close(quantizer.codebook[3], around.mean((0, 1, 2)), atol=1e-5, rtol=0)


def test_revival_moves_unused_codes_alone(quantizer, grid):
    vectors = flat(grid)
    used = torch.ones(SIZE, dtype=torch.long)
    used[[2, 7]] = 0
    before = quantizer.codebook.detach().clone()
    moved = quantizer.revive(used, vectors, torch.Generator().manual_seed(0))
    assert moved == 2
    stayed = used > 0
    assert torch.equal(quantizer.codebook[stayed], before[stayed])
    for code in (2, 7):
        distances = (quantizer.project(vectors) - quantizer.codebook[code]).norm(dim=-1)
        assert distances.min() < 1e-6
    if quantizer.config.learning == "average":
        assert quantizer.counts[[2, 7]].tolist() == [1, 1]
        assert torch.equal(quantizer.sums[[2, 7]], quantizer.codebook[[2, 7]])


def test_nothing_moves_where_every_code_is_used(quantizer, grid):
    before = quantizer.codebook.detach().clone()
    generator = torch.Generator().manual_seed(0)
    assert quantizer.revive(torch.ones(SIZE), flat(grid), generator) == 0
    assert torch.equal(quantizer.codebook, before)


def test_k_means_finds_the_clusters(quantizer):
    generator = torch.Generator().manual_seed(3)
    centres = quantizer.project(torch.eye(WIDTH) * 5)
    vectors = centres.repeat(200, 1)
    vectors += 0.01 * torch.randn(vectors.shape, generator=generator)
    quantizer.start(vectors, generator)
    nearest = torch.cdist(centres, quantizer.project(quantizer.codebook)).min(-1)
    assert nearest.values.max() < 0.05
    chosen = quantizer.lookup(quantizer.nearest(quantizer.project(vectors)))
    assert (chosen - quantizer.project(vectors)).norm(dim=-1).max() < 0.1


def test_k_means_lowers_the_error_round_by_round(quantizer):
    vectors = torch.randn(300, WIDTH, generator=torch.Generator().manual_seed(5))

    def error(rounds):
        quantizer.start(vectors, torch.Generator().manual_seed(0), rounds)
        projected = quantizer.project(vectors)
        chosen = quantizer.lookup(quantizer.nearest(projected))
        return F.mse_loss(chosen, projected).item()

    assert error(0) > error(1) > error(10)


def test_the_same_generator_gives_the_same_start(quantizer, grid):
    books = []
    for _ in range(2):
        quantizer.start(flat(grid), torch.Generator().manual_seed(0))
        books.append(quantizer.codebook.detach().clone())
    assert torch.equal(*books)
