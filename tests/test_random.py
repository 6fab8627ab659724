"""Random numbers: the stream itself, its distributions, and who may draw from it."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest

import tinygrad_bn as tg
from tests.optional import stats
from tinygrad_bn.backend import backend_for
from tinygrad_bn.errors import ArgumentError, BackendError, DtypeError, ShapeError
from tinygrad_bn.philox import generator_on, philox_words, scaled

N = 100_000
LIKELY = 1e-4
"""The p-value below which a distribution is refused; seeds are fixed: it is so always, or never."""


def words(key: int, counter: tuple[int, int], n: int, device: str) -> list[int]:
    backend = backend_for(device)
    found = philox_words(
        backend,
        backend.asarray(np.array([key], np.uint64)),
        backend.asarray(np.array(counter, np.uint64)),
        n,
    )
    assert found.dtype == np.uint32
    return [int(w) for w in backend.to_numpy(found)]


class TestPhilox:
    @pytest.mark.parametrize(
        ("key", "counter", "expected"),
        [
            (0, (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
            (2**64 - 1, (2**64 - 1, 2**64 - 1), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
            (
                0x299F31D0A4093822,
                (0x85A308D3243F6A88, 0x0370734413198A2E),
                "d16cfe09 94fdcceb 5001e420 24126ea1",
            ),
        ],
    )
    def test_known_answers_of_random123(self, key, counter, expected, device):
        assert words(key, counter, 4, device) == [int(w, 16) for w in expected.split()]

    def test_element_i_is_word_i_mod_4_of_lane_i_div_4(self, device):
        run = words(7, (2**32 - 2, 5), 18, device)  # over the counter's first 32 bits
        for i, word in enumerate(run):
            assert word == words(7, (2**32 - 2 + i // 4, 5), 4, device)[i % 4]

    def test_the_counter_wraps_around(self, device):
        run = words(7, (2**64 - 1, 0), 8, device)
        assert run[4:] == words(7, (0, 0), 4, device)


class TestScaled:
    @pytest.mark.parametrize("span", [1, 3, 10, 2**32 - 1, 2**32, 2**40 + 7, 2**63, 2**64 - 1])
    def test_is_the_upper_half_of_the_product(self, span):
        x = [0, 1, 2**32 - 1, 2**32, 2**63 + 12345, 2**64 - 1]
        found = scaled(np.array(x, np.uint64), span)
        assert [int(v) for v in found] == [v * span >> 64 for v in x]


DRAWS = {
    "rand": lambda g: tg.rand(33, generator=g),
    "rand in float64": lambda g: tg.rand(33, dtype=tg.float64, generator=g),
    "rand in float16": lambda g: tg.rand(33, dtype=tg.float16, generator=g),
    "randint": lambda g: tg.randint(-5, 1000, (7, 3), generator=g),
    "randperm": lambda g: tg.randperm(101, generator=g),
    "bernoulli": lambda g: tg.bernoulli(tg.full((50,), 0.3, device=g.device), generator=g),
    "bernoulli of p": lambda g: tg.bernoulli(tg.zeros(50, device=g.device), 0.7, generator=g),
}


class TestStreams:
    @pytest.mark.parametrize("name", DRAWS)
    def test_are_the_same_bits_on_both_backends(self, name, device):
        first = DRAWS[name](tg.Generator("cpu").manual_seed(5))
        second = DRAWS[name](tg.Generator(device).manual_seed(5))
        assert second.device == tg.device(device)
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first.numpy(), second.cpu().numpy())

    @pytest.mark.parametrize("dtype", [tg.float16, tg.float32, tg.float64])
    def test_are_normal_to_two_ulp_on_both_backends(self, dtype, device):
        first = tg.randn(1001, dtype=dtype, generator=tg.Generator().manual_seed(5))
        second = tg.randn(1001, dtype=dtype, generator=tg.Generator(device).manual_seed(5))
        np.testing.assert_array_max_ulp(first.numpy(), second.cpu().numpy(), maxulp=2)

    def test_go_on_where_the_state_was_taken(self, device):
        generator = tg.Generator(device).manual_seed(3)
        tg.rand(5, generator=generator)
        state = generator.get_state()
        first = tg.rand(9, generator=generator)
        other = tg.Generator("cpu")
        other.set_state(state)
        np.testing.assert_array_equal(first.cpu().numpy(), tg.rand(9, generator=other).numpy())
        assert other.initial_seed() == 3
        assert state.tolist() == [3, 2, 0]  # five words took two lanes; taking it advanced nothing

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
    def test_are_copied_with_their_place(self, copied, device):
        generator = tg.Generator(device).manual_seed(3)
        tg.rand(5, generator=generator)
        twin = copied(generator)
        first, second = (tg.rand(9, generator=g).cpu().numpy() for g in (generator, twin))
        np.testing.assert_array_equal(first, second)

    def test_do_not_share_words_between_draws(self):
        drawn = [tg.rand(n).tolist() for n in (1, 5, 4, 2)]
        everything = [x for row in drawn for x in row]
        assert len(set(everything)) == len(everything)

    def test_depend_on_the_whole_seed(self):
        seeds = [0, 1, 2**32, 2**63, -1, 2**64 - 2]
        firsts = {tg.rand(1, generator=tg.Generator().manual_seed(s)).item() for s in seeds}
        assert len(firsts) == len(seeds)

    def test_count_negative_seeds_from_the_end(self):
        assert tg.Generator().manual_seed(-1).initial_seed() == 2**64 - 1

    def test_are_given_to_one_thread_each(self):
        generator, drawn = tg.Generator().manual_seed(0), []

        def draw():
            for _ in range(50):
                drawn.extend(tg.rand(4, generator=generator, dtype=tg.float32).tolist())

        threads = [threading.Thread(target=draw) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = tg.Generator().manual_seed(0).uniform((800,), np.dtype(np.float32))
        assert sorted(drawn) == sorted(expected.tolist())


class TestDefaultGenerator:
    def test_starts_over_with_the_seed(self, device):
        tg.manual_seed(11)
        first = tg.rand(6, device=device)
        assert not (tg.rand(6, device=device) == first).all().item()
        assert tg.manual_seed(11) is tg.default_generator
        np.testing.assert_array_equal(tg.rand(6, device=device).cpu().numpy(), first.cpu().numpy())
        assert tg.initial_seed() == 11

    def test_has_a_state(self):
        state = tg.get_rng_state()
        first = tg.randn(3).tolist()
        tg.set_rng_state(state)
        assert tg.randn(3).tolist() == first

    def test_takes_a_seed_that_nobody_can_foretell(self):
        assert tg.seed() != tg.seed()
        assert tg.cuda.manual_seed_all(4) is None
        assert tg.initial_seed() == 4


class TestDistributions:
    def setup_method(self):
        self.generator = tg.Generator().manual_seed(20260)

    @pytest.mark.parametrize(("dtype", "bits"), [(tg.float32, 24), (tg.float64, 53)])
    def test_uniform(self, dtype, bits):
        x = tg.rand(N, dtype=dtype, generator=self.generator).numpy().astype(np.float64)
        assert x.min() >= 0
        assert x.max() < 1
        assert (x * 2.0**bits % 1 == 0).all()
        assert (x * 2.0 ** (bits - 1) % 1 != 0).any()
        assert stats.kstest(x, "uniform").pvalue > LIKELY

    def test_uniform_of_16_bits_stays_below_one(self):
        x = tg.rand(N, dtype=tg.float16, generator=self.generator).numpy()
        assert x.max() == 1 - 2.0**-11

    @pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
    def test_normal(self, dtype):
        x = tg.randn(N + 1, dtype=dtype, generator=self.generator).numpy().astype(np.float64)
        assert stats.kstest(x, "norm").pvalue > LIKELY
        assert abs(x.mean()) < 4 / np.sqrt(N)  # four standard errors
        assert abs(x.var() - 1) < 4 * np.sqrt(2 / N)
        assert abs(np.corrcoef(x[:-1:2], x[1::2])[0, 1]) < 4 / np.sqrt(N / 2)

    def test_consecutive_draws_are_independent(self):
        a, b = (tg.rand(N, generator=self.generator).numpy() for _ in range(2))
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(N)

    def test_neighbouring_seeds_are_independent(self):
        a, b = (tg.rand(N, generator=tg.Generator().manual_seed(s)).numpy() for s in (1, 2))
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(N)

    def test_whole_numbers(self):
        x = tg.randint(-3, 4, (N,), generator=self.generator)
        assert x.dtype == tg.int64
        counts = np.bincount(x.numpy() + 3, minlength=7)
        assert len(counts) == 7
        assert stats.chisquare(counts).pvalue > LIKELY

    def test_whole_numbers_of_every_size(self):
        x = tg.randint(-(2**63), 2**63, (1000,), generator=self.generator).numpy()
        assert x.min() < -(2**62)
        assert x.max() > 2**62

    def test_coins(self):
        p = tg.tensor([0.0, 0.2, 1.0]).unsqueeze(1).expand(3, N)
        mean = tg.bernoulli(p, generator=self.generator).mean(1)
        assert mean[0] == 0
        assert mean[2] == 1
        assert abs(mean[1].item() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / N)

    def test_permutations_are_all_as_likely(self):
        counts: dict[tuple[int, ...], int] = {}
        for _ in range(6000):
            order = tuple(tg.randperm(4, generator=self.generator).tolist())
            counts[order] = counts.get(order, 0) + 1
        assert len(counts) == 24
        assert stats.chisquare(list(counts.values())).pvalue > LIKELY

    @pytest.mark.parametrize("n", [0, 1, 2, 1000])
    def test_permutations_have_every_number_once(self, n):
        x = tg.randperm(n, generator=self.generator)
        assert sorted(x.tolist()) == list(range(n))

    def test_weights_with_replacement(self):
        weights = tg.tensor([1.0, 0.0, 3.0, 4.0])
        drawn = tg.multinomial(weights, N, replacement=True, generator=self.generator)
        counts = np.bincount(drawn.numpy(), minlength=4)
        assert counts[1] == 0
        assert stats.chisquare(counts[[0, 2, 3]], N * np.array([1, 3, 4]) / 8).pvalue > LIKELY

    def test_weights_without_replacement(self):
        weights = tg.tensor([1.0, 0.0, 3.0, 4.0]).expand(N, 4)
        drawn = tg.multinomial(weights, 3, generator=self.generator).numpy()
        assert (np.sort(drawn, axis=1) == [0, 2, 3]).all()
        first = np.bincount(drawn[:, 0], minlength=4)[[0, 2, 3]]
        assert stats.chisquare(first, N * np.array([1, 3, 4]) / 8).pvalue > LIKELY
        second = np.bincount(drawn[drawn[:, 0] == 3, 1], minlength=4)[[0, 2]]
        assert stats.chisquare(second, second.sum() * np.array([1, 3]) / 4).pvalue > LIKELY

    def test_means_and_deviations(self):
        mean, std = tg.tensor([[0.0], [10.0]]), tg.full((2, N), 2.0)
        x = tg.normal(mean, std, generator=self.generator)
        assert x.shape == (2, N)
        # four standard errors of a mean, and of a variance
        np.testing.assert_allclose(x.mean(1).numpy(), [0, 10], atol=4 * 2 / np.sqrt(N))
        np.testing.assert_allclose(x.numpy().var(1), 4, atol=4 * 4 * np.sqrt(2 / N))
        assert tg.normal(1.0, 2.0, (3, 2)).shape == (3, 2)


class TestForms:
    def test_sizes_dtypes_and_gradients(self, device):
        assert tg.rand(2, 3, device=device).shape == tg.rand((2, 3)).shape == (2, 3)
        assert tg.randn((), device=device).shape == ()
        assert tg.rand(0, 4, device=device).shape == (0, 4)
        assert tg.randn(2, requires_grad=True, device=device).is_leaf
        assert tg.randint(3, (2,), dtype=tg.int32, device=device).dtype == tg.int32
        assert tg.randint(high=3, size=(2,)).shape == (2,)
        assert tg.randperm(3, dtype=tg.int32, device=device).dtype == tg.int32

    def test_likenesses(self, device):
        x = tg.zeros(2, 3, dtype=tg.float64, device=device)
        for y in (tg.rand_like(x), tg.randn_like(x), tg.randint_like(x, 5)):
            assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)
        assert tg.rand_like(x, dtype=tg.float32).dtype == tg.float32
        for likeness in (tg.rand_like, tg.randn_like, lambda a: tg.randint_like(a, 5)):
            with pytest.raises(DtypeError, match="got ndarray"):
                likeness(np.zeros(2))

    def test_in_place(self, device):
        x = tg.zeros(1000, dtype=tg.float64, device=device)
        assert x.uniform_(2, 3, generator=tg.Generator(device).manual_seed(0)) is x
        assert 2 <= x.cpu().numpy().min() <= x.cpu().numpy().max() < 3
        x.normal_(5, 0.5)
        assert abs(x.mean().item() - 5) < 4 * 0.5 / np.sqrt(1000)
        x.bernoulli_(0.5)
        assert set(x.tolist()) == {0, 1}


class TestBadInput:
    @pytest.mark.parametrize(
        ("error", "call"),
        [
            (ShapeError, lambda: tg.rand(-1)),
            (DtypeError, lambda: tg.rand(3, dtype=tg.int64)),
            (DtypeError, lambda: tg.rand(3, generator=np.random.default_rng())),
            (ArgumentError, lambda: tg.randint(3, 3, (1,))),
            (ArgumentError, lambda: tg.randint(0, 300, (1,), dtype=tg.uint8)),
            (ArgumentError, lambda: tg.randint(0, 2**64, (1,))),
            (ShapeError, lambda: tg.randint(0, 3)),
            (ShapeError, lambda: tg.randperm(-1)),
            (ArgumentError, lambda: tg.bernoulli(tg.tensor([0.5, 1.5]))),
            (ArgumentError, lambda: tg.bernoulli(tg.tensor([float("nan")]))),
            (ArgumentError, lambda: tg.bernoulli(tg.zeros(2), -0.1)),
            (DtypeError, lambda: tg.bernoulli(tg.tensor([0, 1]))),
            (ArgumentError, lambda: tg.normal(0.0, -1.0, (2,))),
            (ArgumentError, lambda: tg.multinomial(tg.tensor([0.0, 1.0]), 2)),
            (ArgumentError, lambda: tg.multinomial(tg.tensor([0.0, -1.0]), 1)),
            (ShapeError, lambda: tg.multinomial(tg.zeros(1, 1, 1), 1)),
            (DtypeError, lambda: tg.manual_seed("a")),
            (ArgumentError, lambda: tg.manual_seed(2**64)),
            (DtypeError, lambda: tg.zeros(2, dtype=tg.int64).normal_()),
            (ArgumentError, lambda: tg.zeros(2).normal_(0, -1)),
            (ArgumentError, lambda: tg.zeros(2).uniform_(1, 0)),
            (DtypeError, lambda: tg.Generator().set_state(np.zeros(3, np.uint64))),
            (ShapeError, lambda: tg.Generator().set_state(tg.zeros(3))),
        ],
    )
    def test_is_refused_and_takes_nothing_from_the_stream(self, error, call):
        state = tg.get_rng_state().tolist()
        with pytest.raises(error, match="expected"):
            call()
        assert tg.get_rng_state().tolist() == state

    def test_a_generator_of_another_device(self, device):
        other = tg.Generator("cpu")
        if device == "cpu":
            assert generator_on(backend_for("cpu"), other) is other
        else:
            with pytest.raises(BackendError, match="cuda"):
                tg.rand(3, device=device, generator=other)
