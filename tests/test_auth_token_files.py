"""Keys and secrets of issuers in files: which are taken, and how they change and go."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deployment import until
from judging import ID, SECRET, WEAK_BITS, code, followed, tokens_of
from scoreboard.auth import keyring
from scoreboard.auth.grants import Grants
from scoreboard.auth.tokens import Tokens
from scoreboard.config import Auth as AuthTable
from scoreboard.config import Config, Environment
from scoreboard.errors import ConfigurationError
from scoreboard.issuers import Issuer
from signing import Signer


def weak(size: int) -> str:
    public: bytes = (
        rsa.generate_private_key(public_exponent=65537, key_size=size)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return public.decode()


@pytest.mark.parametrize(
    ("algorithm", "pem", "complaint"),
    [
        ("EdDSA", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a PEM public key"),
        ("EdDSA", ID.private_pem, "not a PEM public key"),
        ("RS256", ID.pem, "for EdDSA, which is not among"),
        ("RS256", weak(WEAK_BITS), "less than 2048 bits"),
    ],
)
def test_a_file_that_is_no_fitting_public_key_is_refused_at_start(
    algorithm: str, pem: str, complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        tokens_of(algorithms=(algorithm,), keys=(pem,))


async def soon(judge: Tokens, old: str, new: str, first: str, second: str) -> None:
    """Wait, not for long, until the two tokens are judged so."""
    began = time.monotonic()

    async def so() -> bool:
        return (code(judge, old), code(judge, new)) == (first, second)

    await until(so)
    assert time.monotonic() - began < 5


async def test_a_key_file_that_changes_or_goes_takes_effect_within_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOOK_SECONDS", 0.05)
    file, other = tmp_path / "id.pem", Signer()
    file.write_text(ID.pem)
    judge = tokens_of(keys=(str(file),))
    old, new = ID.token(), other.token()
    async with followed(judge):
        assert (code(judge, old), code(judge, new)) == ("fine", "invalid_token")
        is_now = partial(soon, judge, old, new)

        (tmp_path / "next.pem").write_text(other.pem)
        (tmp_path / "next.pem").replace(file)
        await is_now("invalid_token", "fine")  # though the old one was remembered
        file.write_text("-----BEGIN PUB")  # somebody is still writing

        async def seen() -> bool:
            return "the key before it stays" in caplog.text

        await until(seen)
        assert code(judge, new) == "fine"
        file.write_text(ID.pem)
        await is_now("fine", "invalid_token")
        file.unlink()
        await is_now("unknown kid", "unknown kid")


def hs256(secret: str) -> str:
    claims = jwt.decode(ID.token(), options={"verify_signature": False})
    return jwt.encode(claims, secret, "HS256")


def secret_file(file: Path, secret: str, mode: int = 0o600) -> Path:
    """A file with a secret, put in its place in one step."""
    beside = file.with_suffix(".next")
    beside.write_text(secret + "\n")
    beside.chmod(mode)
    return beside.replace(file)


async def test_a_file_with_a_secret_that_changes_or_goes_takes_effect_within_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOOK_SECONDS", 0.05)
    file, next_secret = secret_file(tmp_path / "issuer.secret", SECRET), SECRET[::-1]
    judge = tokens_of(algorithms=("HS256",), secret_file=str(file))
    old, new = hs256(SECRET), hs256(next_secret)
    async with followed(judge):
        assert (code(judge, old), code(judge, new)) == ("fine", "invalid_token")
        is_now = partial(soon, judge, old, new)

        secret_file(file, next_secret, 0o644)

        async def told() -> bool:
            return "may be read by others" in caplog.text

        await until(told)
        assert code(judge, old) == "fine"  # as with a file that is no key
        file.chmod(0o600)
        await is_now("invalid_token", "fine")  # though the old one was remembered
        file.unlink()
        await is_now("unknown kid", "unknown kid")


@pytest.mark.parametrize(
    ("secret", "mode", "complaint"),
    [(SECRET, 0o640, "chmod 600"), (SECRET, 0o604, "chmod 600"), ("x" * 31, 0o600, "must hold 32 bytes")],
)
def test_a_file_whose_secret_is_weak_or_none_is_refused_at_start(
    tmp_path: Path, secret: str, mode: int, complaint: str
) -> None:
    file = secret_file(tmp_path / "issuer.secret", secret, mode)
    with pytest.raises(ConfigurationError, match=complaint):
        tokens_of(algorithms=("HS256",), secret_file=str(file))


def test_a_secret_is_a_token_issuers_or_a_grant_issuers_wherever_it_stands(tmp_path: Path) -> None:
    file = secret_file(tmp_path / "issuer.secret", SECRET)
    table = AuthTable(
        issuers=(Issuer(issuer="a", algorithms=("HS256",), secret=SECRET),),
        grant_issuers=(Issuer(issuer="b", algorithms=("HS256",), secret_file=str(file)),),
    )
    with pytest.raises(ConfigurationError, match="a set apart"):
        Grants(Config(auth=table), Environment())
