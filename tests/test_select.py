"""Properties of masks that hold for any logits, lengths and sparsity."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rekd.errors import SettingError
from rekd.select import deterministic_mask, gumbel_noise, gumbel_softmax, random_mask, temperature, topk_mask

shares = st.floats(0.01, 1.0)
seeds = st.integers(0, 10_000)
rows = st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(any) # selectable features of each example


def case(counts, seed, coarse=False):
    "Scores (with many ties if coarse) and a selectable mask with holes, as special tokens and padding make them."
    g = torch.Generator().manual_seed(seed)
    L = max(counts) + 3
    places = torch.rand(len(counts), L, generator=g).argsort(-1).argsort(-1)
    scores = torch.randint(3, (len(counts), L), generator=g).float() if coarse else torch.randn(len(counts), L, generator=g) * 10
    return scores, places < torch.tensor(counts)[:, None]


def expected_counts(counts, sparsity):
    "round as torch does, half to even; at least one, at most all there are."
    k = (torch.tensor(counts) * sparsity).round().long().clamp(min=1)
    return torch.minimum(k, torch.tensor(counts)).tolist()


@given(rows, seeds, shares, st.booleans())
def test_topk_keeps_the_best_of_the_selectable_and_nothing_else(counts, seed, sparsity, coarse):
    scores, selectable = case(counts, seed, coarse)
    mask = topk_mask(scores, selectable, sparsity)
    assert mask.dtype == torch.float32 and set(mask.unique().tolist()) <= {0.0, 1.0}
    assert not (mask.bool() & ~selectable).any()
    assert mask.sum(-1).tolist() == expected_counts(counts, sparsity)
    for s, free, m in zip(scores, selectable, mask.bool()): # a plain reading of the definition, ties to the earlier feature
        best = sorted(free.nonzero().flatten().tolist(), key=lambda i: (-s[i].item(), i))
        assert m.nonzero().flatten().tolist() == sorted(best[:int(m.sum())])
    assert torch.equal(mask, topk_mask(scores, selectable, sparsity))


def test_topk_counts_written_out():
    keep = lambda n, sparsity: int(topk_mask(torch.zeros(1, 40), torch.arange(40)[None] < n, sparsity).sum())
    assert [keep(n, 0.1) for n in (0, 1, 4, 10, 14, 16, 40)] == [0, 1, 1, 1, 1, 2, 4]
    assert [keep(n, 0.5) for n in (1, 3, 5, 7)] == [1, 2, 2, 4] and keep(7, 1.0) == 7


@pytest.mark.parametrize("sparsity", [0.0, -0.1, 1.1, float("nan")])
def test_topk_refuses_an_impossible_share(sparsity):
    with pytest.raises(ValueError, match="sparsity"): topk_mask(torch.zeros(1, 4), torch.ones(1, 4).bool(), sparsity)


@given(rows, seeds)
def test_deterministic_keeps_where_keep_wins(counts, seed):
    scores, selectable = case(counts, seed)
    logits = torch.stack([-scores, scores], -1)
    assert torch.equal(deterministic_mask(logits, selectable), ((scores > 0) & selectable).float())
    assert deterministic_mask(torch.zeros_like(logits), selectable).sum() == 0 # a tie is no win


@given(rows, seeds, shares)
def test_random_keeps_as_many_as_topk_from_its_own_generator(counts, seed, sparsity):
    _, selectable = case(counts, seed)
    draw = lambda: random_mask(selectable, sparsity, torch.Generator().manual_seed(seed))
    assert draw().sum(-1).tolist() == expected_counts(counts, sparsity)
    assert not (draw().bool() & ~selectable).any() and torch.equal(draw(), draw())


def test_random_is_fair():
    n, L = 20_000, 10
    share = random_mask(torch.ones(n, L).bool(), 0.3).mean(0)
    assert (share - 0.3).abs().max() < 4 * (0.3 * 0.7 / n) ** 0.5


@given(st.integers(1, 5000), st.integers(1, 200), st.floats(0.05, 1.0), st.floats(1.0, 10.0))
def test_temperature_falls_in_steps_and_stays_between_its_ends(total, every, end, start):
    Ts = [temperature(s, total, start, end, every) for s in range(0, total + 1, max(total // 50, 1))]
    assert all(a >= b for a, b in zip(Ts, Ts[1:])) and all(end <= T <= start for T in Ts)
    assert temperature(every - 1, total, start, end, every) == start == temperature(0, total, start, end, every)


@pytest.mark.parametrize("bad", [dict(start=0.1, end=5.0), dict(end=0.0), dict(every=0), dict(total_steps=0)])
def test_temperature_refuses_an_impossible_schedule(bad):
    with pytest.raises(ValueError): temperature(**dict(step=0, total_steps=10) | bad)


@pytest.mark.parametrize("T", [0, -1.0, float("nan")])
def test_gumbel_softmax_refuses_an_impossible_temperature(T):
    with pytest.raises(SettingError, match=r"temperature must be a number in \(0, inf\)"): gumbel_softmax(torch.zeros(3), T)

def test_noise_repeats_with_its_generator():
    again = lambda: gumbel_noise(torch.zeros(3), torch.Generator().manual_seed(42))
    assert torch.equal(again(), again())

def test_masks_at_their_edges():
    scores, some = torch.randn(3, 12), torch.arange(12) < torch.tensor([12, 8, 4])[:, None]
    assert not topk_mask(scores, some & False, 0.25).any() # nothing to select: nothing kept
    assert torch.equal(topk_mask(scores, some, 1.0), some.float())
    assert topk_mask(torch.full((1, 3), -torch.inf), torch.tensor([[False, True, True]]), 0.5).tolist() == [[0, 1, 0]]
    with pytest.raises(SettingError, match=r"bool tensor of shape \(3, 12\)"): topk_mask(scores, some[:, :-1], 0.25)
    with pytest.raises(SettingError, match="got torch.float32"): deterministic_mask(torch.zeros(3, 12, 2), some.float())
