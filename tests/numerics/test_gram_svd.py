"""Decompositions from Gram matrices, against dense ones of the matrices themselves."""

import pytest
import torch
from torch import Tensor

from nextrapolate_numerics.gram_svd import Core

M, N, Q = 90, 80, 70  # so many columns that the leading triples are iterated for, not decomposed


def factors(values: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """B (m, q) and A (q, n), neither orthogonal, whose product has these singular values."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    U, V, R = (torch.linalg.qr(random(size, Q)).Q for size in (M, N, Q))
    stretch = torch.linspace(0.3, 2.0, Q, dtype=torch.float64)
    return U * values @ (R * stretch), (R / stretch).mT @ V.mT


def grams(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([B.mT @ B for B, _ in pairs]), torch.stack([A @ A.mT for _, A in pairs])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1.0, 1e6])
def test_leading_triples_are_the_dense_ones(count: int, scale: float) -> None:
    """Falling fast, falling slowly, of low rank, and one so flat that iteration does not find its end."""
    k = torch.arange(1, Q + 1, dtype=torch.float64)
    spectra = [k**-1.5, k**-0.4, (k <= 3) / k, 1 + (Q - k) / 1000]
    pairs = [factors(scale * values, seed) for seed, values in enumerate(spectra)]
    core = Core.leading(*grams(pairs), count)
    for index, (B, A) in enumerate(pairs):
        u, sigma, vt = torch.linalg.svd(B @ A)
        torch.testing.assert_close(core.values[index].sqrt(), sigma[:count], rtol=1e-9, atol=0)
        left, right = B @ core.left[index], A.mT @ core.right[index]
        torch.testing.assert_close(left.norm(dim=0), sigma[:count], rtol=1e-9, atol=0)
        torch.testing.assert_close(
            (u[:, :count].mT @ left).diagonal().abs(), sigma[:count], rtol=1e-9, atol=0
        )
        torch.testing.assert_close(
            (vt[:count] @ right).diagonal().abs(), sigma[:count] ** 2, rtol=1e-9, atol=0
        )


@pytest.mark.parametrize("scale", [1e-25, 1.0])
def test_small_values_beside_a_large_one_are_found(scale: float) -> None:
    """Powers put them under the rounding of the large one, of which one round leaves nothing."""
    values = torch.full((Q,), 1e-6, dtype=torch.float64)
    values[:8] = torch.tensor([1, 3e-4, 2.5e-4, 2e-4, 1.5e-4, 1e-4, 9e-5, 8e-5])
    B, A = factors(scale * values, seed=0)
    core = Core.leading(*grams([(B, A)]), 8)
    torch.testing.assert_close(core.values[0].sqrt(), scale * values[:8], rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0])
def test_how_small_the_numbers_are_does_not_decide_how_they_are_found(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real deltas at small rates are 1e-3 long: they are iterated for as any others are."""
    whole: list[Tensor] = []
    monkeypatch.setattr(Core, "of", lambda *grams: whole.extend(grams))
    Core.leading(*grams([factors(scale * torch.arange(1, Q + 1, dtype=torch.float64) ** -1.5, seed=0)]), 1)
    assert not whole


def test_a_delta_of_nothing_has_no_triples() -> None:
    zero = torch.zeros(2, Q, Q, dtype=torch.float64)
    identity = torch.eye(Q, dtype=torch.float64).expand_as(zero)
    for core in (Core.leading(zero, identity, 3), Core.leading(identity, zero, 3)):
        assert core.values.shape == (2, 3)
        assert not core.values.any()
        assert core.left.isfinite().all()
        assert core.right.isfinite().all()


def test_dependent_rows_need_no_care() -> None:
    """The same rows twice: half of the Gram matrix's directions do not exist."""
    B, A = factors(torch.arange(Q, 0, -1, dtype=torch.float64), seed=0)
    B, A = torch.cat([B, B], dim=1), torch.cat([A, -0.5 * A])
    gram_b, gram_a = grams([(B, A)])
    expected = torch.arange(Q, 0, -1, dtype=torch.float64) / 2
    torch.testing.assert_close(Core.spectrum(gram_b, gram_a)[0, :Q], expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(Core.leading(gram_b, gram_a, 2).values[0].sqrt(), expected[:2])


@pytest.mark.parametrize("count", [1, 3, 8])
def test_what_one_needs_changes_no_other(count: int) -> None:
    """A flat spectrum takes more rounds, or the whole decomposition, than its neighbours in the batch."""
    steep = [factors(torch.arange(1, Q + 1, dtype=torch.float64) ** -power, seed=0) for power in (1.5, 2.0)]
    flat = [factors(torch.linspace(1, share, Q, dtype=torch.float64), seed=1) for share in (0.999, 0.5)]
    alone, beside = (Core.leading(*grams(batch), count) for batch in (steep, [flat[0], *steep, flat[1]]))
    for side in ("values", "left", "right"):
        assert getattr(alone, side).equal(getattr(beside, side)[1:3])
    for index, matrix in ((0, flat[0]), (3, flat[1])):
        (whole,) = Core.of(*grams([matrix])).values
        torch.testing.assert_close(beside.values[index], whole[:count], rtol=1e-6, atol=0)
