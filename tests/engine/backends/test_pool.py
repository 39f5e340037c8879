"""The pool of per-call objects; they are numbers here, in the order they were made."""

from __future__ import annotations

import pytest

from fastbts import DeviceError
from fastbts.engine.backends.pool import Pool


@pytest.fixture
def freed() -> list[int]:
    return []


@pytest.fixture
def pool(freed: list[int]) -> Pool[int]:
    made = iter(range(9))
    return Pool("x.fbts", lambda: next(made), freed.append)


def test_makes_as_many_as_are_lent_at_once(pool: Pool[int], freed: list[int]) -> None:
    with pool.lend() as first, pool.lend() as second:
        assert (first, second) == (0, 1)
    with pool.lend() as again:
        assert again in (0, 1)
    pool.close()
    assert sorted(freed) == [0, 1]


def test_closing_during_a_call_frees_after_the_call(pool: Pool[int], freed: list[int]) -> None:
    with pool.lend():
        pool.close()
        assert freed == []
    assert freed == [0]
    with pytest.raises(DeviceError, match=r"x\.fbts: the engine has been closed"), pool.lend():
        pass


def test_an_error_frees_all_and_ends_the_pool(pool: Pool[int], freed: list[int]) -> None:
    with pool.lend(), pool.lend():
        pass
    with pytest.raises(KeyboardInterrupt), pool.lend():
        raise KeyboardInterrupt
    assert pool.failed
    assert sorted(freed) == [0, 1]
    with pytest.raises(DeviceError, match="another call on this engine failed"), pool.lend():
        pass


def test_a_call_during_which_another_failed_fails_too(pool: Pool[int], freed: list[int]) -> None:
    def two_calls() -> None:
        with pool.lend():
            with pytest.raises(MemoryError), pool.lend():
                raise MemoryError
            assert freed == [1]
            pool.close()

    with pytest.raises(DeviceError, match="whose result may be wrong; call it again"):
        two_calls()
    assert freed == [1, 0]


def test_what_failed_may_fail_to_be_freed() -> None:
    def fail(one: int) -> None:
        raise DeviceError("cudaErrorIllegalAddress")

    pool = Pool("x.fbts", lambda: 0, fail)
    with pytest.raises(RuntimeError, match="first"), pool.lend():
        raise RuntimeError("first")
    whole = Pool("x.fbts", lambda: 0, fail)
    with whole.lend():
        pass
    with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
        whole.close()


def test_an_object_that_cannot_be_made_ends_the_pool() -> None:
    def make() -> int:
        raise MemoryError

    pool = Pool("x.fbts", make, lambda _: None)
    with pytest.raises(MemoryError), pool.lend():
        pass
    assert pool.failed


def test_an_isolated_call_that_fails_loses_only_its_object(freed: list[int]) -> None:
    made = iter(range(9))
    pool = Pool("x.fbts", lambda: next(made), freed.append, isolated=True)
    with pool.lend() as first:
        with pytest.raises(MemoryError), pool.lend():
            raise MemoryError
        assert freed == [1]
    assert not pool.failed
    with pool.lend() as again:
        assert again == first
    pool.close()
    assert freed == [1, 0]


def test_the_last_idle_object_that_fits_is_lent(pool: Pool[int]) -> None:
    with pool.lend(), pool.lend():
        pass
    with pool.lend(lambda one: one == 1) as fitting, pool.lend(lambda one: one == 5) as new:
        assert (fitting, new) == (1, 2)
