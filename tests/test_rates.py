"""Rate limits by themselves: what a limit lets through, and whom it takes for the same."""

from __future__ import annotations

import pytest

from conftest import Clock
from scoreboard import rates
from scoreboard.auth.proxies import Proxies
from scoreboard.config import RateLimits
from scoreboard.errors import Problem
from scoreboard.model import Principal
from scoreboard.rates import Limit, Rates, network_of


@pytest.mark.parametrize(("rate", "each"), [("5/s", 0.2), ("6/m", 10), ("4/h", 900), ("1/s", 1)])
def test_a_limit_lets_a_burst_through_and_then_one_at_a_time(clock: Clock, rate: str, each: float) -> None:
    limit, burst = Limit(rate), int(rate[0])
    assert [limit.take("ann") for _ in range(burst)] == [0] * burst
    assert limit.take("ann") == pytest.approx(each, rel=0.02)
    for _ in range(3):
        clock.now += each * 0.9
        assert limit.take("ann") > 0
        clock.now += each * 0.1
        assert limit.wait("ann") <= 0
        assert limit.take("ann") == 0
        assert limit.take("ann") == pytest.approx(limit.wait("ann"))
        assert limit.take("ann") > 0


def test_over_time_nobody_gets_more_than_the_rate_and_one_burst(clock: Clock) -> None:
    limit = Limit("20/s")
    passed = 0
    for _ in range(10_000):  # ten seconds, asking a thousand times a second
        passed += limit.take("ann") == 0
        clock.now += 0.001
    assert 200 <= passed <= 220 + 1


def test_what_is_refused_does_not_put_off_what_comes_later(clock: Clock) -> None:
    limit = Limit("2/s")
    refused = [limit.take("ann") for _ in range(1_000)]
    assert refused.count(0) == 2
    clock.now += 0.5
    assert limit.take("ann") == 0


def test_a_flood_of_others_neither_grows_the_memory_nor_frees_who_is_over_the_limit(clock: Clock) -> None:
    limit = Limit("100/h")
    while limit.take("attacker") == 0:
        clock.now += 0.001
    before = {name: len(row) for name, row in vars(limit).items() if hasattr(row, "__len__")}
    for number in range(200_000):
        limit.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert limit.take("attacker") > 0
    assert {name: len(row) for name, row in vars(limit).items() if hasattr(row, "__len__")} == before
    assert set(before.values()) == {rates.PLACES}


def test_hundreds_at_their_limit_are_not_taken_for_somebody_else() -> None:
    limit = Limit("20/h")
    for attacker in range(500):
        for _ in range(20):
            limit.take(f"attacker {attacker}")
    others = [limit.take(f"ann {number}") for number in range(2_000)]
    assert sum(wait > 0 for wait in others) <= 5  # 0.1 are to be expected


def test_limits_that_are_off_refuse_nobody() -> None:
    off = Rates(RateLimits(enabled=False, per_address="1/h", per_user="1/h", per_key="1/h"))
    for _ in range(10):
        off.address("192.0.2.1", write=True)
        off.failed("192.0.2.1")
        off.principal(Principal("user", "ann"))


def test_a_user_and_a_key_of_the_same_name_are_two() -> None:
    limits = Rates(RateLimits(per_user="1/h", per_key="1/h"))
    limits.principal(Principal("user", "k_1"))
    limits.principal(Principal("service", "k_1"))
    with pytest.raises(Problem, match="from this user") as refused:
        limits.principal(Principal("user", "k_1", issuer="another"))
    assert refused.value.retry_after in range(3_550, 3_601)
    with pytest.raises(Problem, match="from this key"):
        limits.principal(Principal("service", "k_1"))


# Whom an address stands for.


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:DB8:1:2:0:0:0:1", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("unknown", "_hidden", False),
        ("::1::", "unknown", False),
        ("", "192.0.2.1", False),
    ],
)
def test_an_ipv6_network_of_64_bits_is_one(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ((), "192.0.2.1", [], "192.0.2.1"),
        ((), "192.0.2.1", ["198.51.100.9"], "192.0.2.1"),
        (("10.0.0.0/8",), "192.0.2.1", ["198.51.100.9"], "192.0.2.1"),
        (("10.0.0.0/8",), "10.0.0.1", ["198.51.100.9"], "198.51.100.9"),
        (("10.0.0.0/8",), "10.0.0.1", ["1.1.1.1, 198.51.100.9"], "198.51.100.9"),
        (("10.0.0.0/8",), "10.0.0.1", ["1.1.1.1, 10.0.0.9", "198.51.100.9,10.0.0.2"], "198.51.100.9"),
        (("10.0.0.0/8",), "10.0.0.1", ["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
        (("10.0.0.1",), "::ffff:10.0.0.1", ["198.51.100.9:4711"], "198.51.100.9"),
        (("10.0.0.1",), "10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        (("10.0.0.1",), "10.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        (("fd00::/8",), "fd00::1", ["1.1.1.1,, 198.51.100.9 "], "198.51.100.9"),
        (("10.0.0.1",), "10.0.0.1", ["198.51.100.9, "], "10.0.0.1"),
        (("10.0.0.1",), "10.0.0.1", [], "10.0.0.1"),
        (("10.0.0.1",), "10.0.0.1", ["1.1.1.1, unknown"], "unknown"),
        (("10.0.0.1",), "", ["1.1.1.1"], ""),
    ],
)
def test_only_a_trusted_proxy_says_where_a_request_comes_from(
    trusted: tuple[str, ...], peer: str, forwarded: list[str], client: str
) -> None:
    assert Proxies(trusted).client(peer, forwarded) == client
