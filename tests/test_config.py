"""The configuration: strict, and helpful about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scoreboard.config import Board, Config, environment, load, secret_of
from scoreboard.errors import ConfigurationError

SECRETS = '[[auth.issuers]]\nissuer = "x"\nalgorithms = ["HS256"]\n'
URL = '[[auth.issuers]]\nissuer = "x"\nalgorithms = ["EdDSA"]\njwks_url = "{}"\n'


def loaded(tmp_path: Path, text: str, **environ: str) -> Config:
    path = tmp_path / "scoreboard.toml"
    path.write_text(text)
    return load(path, environ)


def test_without_a_file_there_is_one_board_and_one_action() -> None:
    config = load(None, {})
    assert list(config.boards) == ["main"]
    assert {name: (a.points, a.policy) for name, a in config.actions.items()} == {"point": (1, "service")}


def test_a_file_without_boards_has_main(tmp_path: Path) -> None:
    config = loaded(tmp_path, "[actions.win]\npoints = 10\n")
    assert config.boards == {"main": Board()}
    assert list(config.actions) == ["win"]


def test_an_event_counts_on_every_board_that_takes_its_type(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "[actions.win]\npoints = 10\n[actions.visit]\npoints = 0\n"
        '[boards.all]\n[boards.wins]\nactions = ["win"]\n',
    )
    assert config.boards_of("win") == ("all", "wins")
    assert config.boards_of("visit") == ("all",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "Invalid"),
        ("board = 1", "unknown key 'board'; did you mean 'boards'?"),
        ("[actions.win]\npoint = 1", "unknown key 'point' in [actions.win]; did you mean 'points'?"),
        ("[actions.win]", "missing required field `points`"),
        ('[actions.win]\npoints = "10"', "Expected `int`"),
        ("[actions.win]\npoints = 1.5", "Expected `int`"),
        ("[actions.win]\npoints = 9007199254740992", "<= 9007199254740991"),
        ('[actions.win]\npoints = 1\npolicy = "anyone"', "Invalid enum value 'anyone'"),
        ("[actions.Win]\npoints = 1", "action name 'Win' is not of the form"),
        ("[boards.main]\ntop = 101", "<= 100"),
        ("[boards.main]\nrnk = 'dense'", "unknown key 'rnk' in [boards.main]; did you mean 'rank'?"),
        ('[boards.main]\nactions = ["wim"]\n[actions.win]\npoints = 1', "did you mean 'win'?"),
        ('timezone = "Mars"', "timezone 'Mars' is not known"),
        ("[queue]\npartitions = 0", ">= 1"),
        ('namespace = "a b"', "matching regex"),
        (
            '[rate_limits]\nper_usr = "1/s"',
            "unknown key 'per_usr' in [rate_limits]; did you mean 'per_user'?",
        ),
        ("[rate_limits]\nper_user = 20", "Expected `str`"),
        *(
            (f"[{table}]\n{key} = '{rate}'", f"{table}.{key} = '{rate}' is not of the form 20/s")
            for table, key in (("rate_limits", "per_key"), ("live", "handshakes"))
            for rate in ("20", "20/d", "0/s", "-1/s", "1.5/s", "20 / s", "20/S", "20/2s", "", "9999999999/s")
        ),
        *(
            (f"[web]\ntrusted_proxies = ['{proxy}']", f"{proxy!r} in web.trusted_proxies is not an address")
            for proxy in ("*", "proxy.example", "10.0.0.1/8", "10.0.0", "")
        ),
        ('[[auth.issuers]]\nissuer = "x"\nalgorithms = ["none"]', "Invalid enum value 'none'"),
        (
            '[[auth.issuers]]\nissuer = "x"\nalgorithms = ["HS256"]\nsecret_env = "K"',
            "variable K must hold 32",
        ),
        (SECRETS, "HS256 needs secret_env or secret_file"),
        (SECRETS + 'secret_env = "K"\nsecret_file = "s"', "one of the two"),
        (SECRETS + 'secret_file = "s"\nkeys = ["a.pem"]', "alone"),
        (SECRETS + 'secret_file = "none"', "No such file"),
        ('[[auth.issuers]]\nissuer = "x"\nalgorithms = ["EdDSA"]\nsecret_file = "s"', "one of the two"),
        ('[[auth.issuers]]\nissuer = "x"\nalgorithms = ["HS256", "EdDSA"]', "may not share an issuer"),
        ('[[auth.issuers]]\nissuer = "x"\nalgorithms = ["EdDSA"]\nkeys = ["no.pem"]', "No such file"),
        ('[[auth.issuers]]\nissuer = "x"\nalgorithms = ["EdDSA"]', "one of the two"),
        ('[[auth.issuers]]\nissuer = "x"\nalgorithms = []', "one of the two"),
        (URL.format("https://id.example/k") + '\nkeys = ["a.pem"]', "one of the two"),
        (URL.format("https://id.example/k") + '\nsecret_env = "K"', "one of the two"),
        (URL.format("https://id.example/k") + "\njwks_seconds = 1", ">= 5"),
        (URL.format("https://id.example/k") * 2, "it stands twice"),
        (URL.format("http://id.example/k"), "must be like https://"),
        (URL.format("http://127.0.0.1.id.example/k"), "must be like https://"),
        (URL.format("https://user@id.example/k"), "must be like https://"),
        (URL.format("https:///k"), "must be like https://"),
        (URL.format("file:///etc/keys"), "must be like https://"),
        (URL.format("https://[id"), "must be like https://"),
        ('[[auth.grant_issuers]]\nissuer = "x"\nalgorithm = ["EdDSA"]', "did you mean 'algorithms'?"),
        ('[[auth.grant_issuers]]\nissuer = "x"\nalgorithms = ["EdDSA"]', "one of the two"),
    ],
)
def test_what_is_wrong_is_refused_and_named(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(tmp_path, text)
    assert complaint in str(refused.value)
    assert "scoreboard.toml" in str(refused.value)


def test_variables_stand_above_the_file(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "[queue]\npartitions = 2\n",
        SCOREBOARD_QUEUE_PARTITIONS="3",
        SCOREBOARD_AUTH_LOCAL="true",
        SCOREBOARD_WEB_TRUSTED_PROXIES="10.0.0.1, 10.1.0.0/16",
        SCOREBOARD_TIMEZONE="Europe/Berlin",
    )
    assert config.queue.partitions == 3
    assert config.auth.local is True
    assert config.web.trusted_proxies == ("10.0.0.1", "10.1.0.0/16")
    assert config.timezone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("SCOREBOARD_QUEUE_PARTITION", "1", "did you mean 'SCOREBOARD_QUEUE_PARTITIONS'?"),
        ("SCOREBOARD_SECRET", "short", "at least 32 bytes"),
    ],
)
def test_a_variable_that_means_nothing_is_refused(name: str, value: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        environment({name: value})
    assert complaint in str(refused.value)


def test_a_variable_of_the_wrong_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SCOREBOARD_QUEUE_PARTITIONS='many'"):
        loaded(tmp_path, "", SCOREBOARD_QUEUE_PARTITIONS="many")


def test_the_secret_is_made_once_and_is_private(tmp_path: Path) -> None:
    data = tmp_path / "data"
    outer = environment({})
    secret = secret_of(outer, data)
    assert len(secret) == 64
    assert secret_of(outer, data) == secret
    assert [p.name for p in data.iterdir()] == ["secret"]
    assert (data / "secret").stat().st_mode & 0o777 == 0o600
    (data / "secret").chmod(0o644)
    with pytest.raises(ConfigurationError, match="may be read by others"):
        secret_of(outer, data)
    assert secret_of(environment({"SCOREBOARD_SECRET": "x" * 32}), data) == "x" * 32


def test_the_catalogues_hash_tells_another_catalogue(tmp_path: Path) -> None:
    texts: list[Any] = ["[actions.win]\npoints = 1", "[actions.win]\npoints = 2", "[actions.win]\npoints = 1"]
    first, second, third = (loaded(tmp_path, text).catalogue for text in texts)
    assert first == third
    assert first != second


@pytest.mark.parametrize(
    "url", ["https://id.example/k", "http://127.0.0.1:9/k", "http://[::1]:9/k", "http://localhost/k"]
)
def test_keys_are_fetched_over_tls_or_from_this_machine(tmp_path: Path, url: str) -> None:
    (issuer,) = loaded(tmp_path, URL.format(url)).auth.issuers
    assert (issuer.jwks_url, issuer.jwks_seconds) == (url, 60)


def test_the_file_of_a_secret_is_looked_for_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "issuer.secret").write_text("x" * 32)
    (issuer,) = loaded(tmp_path, SECRETS + 'secret_file = "issuer.secret"').auth.issuers
    assert issuer.secret_file == str(tmp_path / "issuer.secret")


def test_a_variable_of_a_grant_issuers_secret_may_have_our_prefix(tmp_path: Path) -> None:
    text = '[[auth.grant_issuers]]\nissuer = "x"\nalgorithms = ["HS256"]\nsecret_env = "SCOREBOARD_GRANT_X"'
    (issuer,) = loaded(tmp_path, text, SCOREBOARD_GRANT_X="x" * 32).auth.grant_issuers
    assert issuer.secret == "x" * 32
    environment({"SCOREBOARD_GRANT_X": "x" * 32})


GOOD = {
    "database": [
        "postgresql://u:p@h/n",
        "postgresql://u:p@/n?host=%2Frun&port=5432",
        "postgres://a:1,b:2/n",
        "postgresql://[::1]:5432/n",
    ],
    "queue": ["nats://u:p@h:4222", "tls://h", "nats://[::1]:4222"],
    "board": ["redis://h", "rediss://:p@h:6379/0", "unix://:p@/run/valkey.sock?db=0"],
}
NONSENSE = [
    "x",
    "http://h",
    "h:1",
    "nats:",
    "redis://",
    "postgresql://h:port/n",
    "nats://u:hush/1@h:4222",
    " ",
]


@pytest.mark.parametrize("engine", GOOD)
def test_a_url_of_an_engine_is_one_and_what_is_none_is_not_repeated(engine: str) -> None:
    variable = f"SCOREBOARD_{engine.upper()}_URL"
    for url in GOOD[engine]:
        environment({variable: url})
    others = [url for other, urls in GOOD.items() if other != engine for url in urls]
    for url in (*NONSENSE, *others, GOOD[engine][0] + " x"):
        with pytest.raises(ConfigurationError, match=rf"^{variable} is not a URL like \w+://") as error:
            environment({variable: url})
        assert "hush" not in str(error.value)
