"""Keys by URL: an issuer's JSON Web Key Set (RFC 7517), fetched in the background and never by a request.

In comes a URL of the configuration; out goes a keyring that follows it. The last good set stands while the
issuer does not answer. A token with an unknown ``kid`` may have it fetched before its time, at most once in
``AGAIN_SECONDS``, and waits for that ``WAIT_SECONDS`` at most; so no stream of invented ids hammers the
issuer. Until then such a token is not refused but told to come again: its key may be new. What is fetched is
bounded in size, time and number of keys, and must never lead anywhere else.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import httpx
import jwt
import msgspec
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from scoreboard.auth.keyring import Key, Keyring, algorithm_of
from scoreboard.errors import Problem
from scoreboard.issuers import Issuer

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 30.0  # between two fetches that unknown kids ask for
WAIT_SECONDS = 1.0  # how long a request waits for a fetch; a provider near by answers within it
FETCH_SECONDS = 5.0
RETRY_SECONDS = 1.0  # after a failure; doubled each time, up to the schedule
SET_BYTES = 256 * 1024
SET_KEYS = 50  # each may be tried for a token that names none
KID_CHARACTERS = 256
_READERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}


class JwksKeyring(Keyring):
    """The public keys that an issuer publishes. ``run`` must be running."""

    def __init__(self, issuer: Issuer, url: str) -> None:
        super().__init__(issuer.issuer, issuer.audience, None)
        self._url, self._algorithms, self._period = url, issuer.algorithms, float(issuer.jwks_seconds)
        self._wanted = asyncio.Event()
        self._fetched = asyncio.Event()  # another one after each fetch
        self._fetching = False
        self._good = False  # was there a set to take, when it was last fetched?
        self._asked = float("-inf")  # when an unknown kid last had it fetched
        self._gone: set[str | None] = set()  # kids that the set before had: no need to ask for them

    async def refresh(self, kid: str | None) -> None:
        """Have the set fetched before its time, as ``Keyring.refresh`` says."""
        wait = await self._fetch_early()
        if wait and kid not in self._gone:
            detail = "The issuer cannot be asked for a key of that kid right now."
            raise Problem("unavailable", detail, retry_after=wait)

    async def _fetch_early(self) -> int:
        """0 when the set is as the issuer has it, else after how many seconds asking again makes sense."""
        fetched, now = self._fetched, asyncio.get_running_loop().time()
        if not self._fetching and not self._wanted.is_set():
            left = self._asked + AGAIN_SECONDS - now
            if left > 0:
                return math.ceil(left) if self._good else 1
            self._asked = now
            self._wanted.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_SECONDS):
                await fetched.wait()
        return 0 if fetched.is_set() and self._good else 1

    async def run(self) -> None:
        """Fetch the set at once, then on the schedule and when it is asked for, until cancelled."""
        retry = RETRY_SECONDS
        async with httpx.AsyncClient(
            follow_redirects=False,
            timeout=FETCH_SECONDS,
            headers={"accept": "application/json", "accept-encoding": "identity"},
        ) as client:
            while True:
                self._fetching = True
                self._wanted.clear()
                self._good = good = await self._fetch(client)
                self._fetching = False
                self._fetched.set()
                self._fetched = asyncio.Event()
                pause = self._period if good else retry
                retry = RETRY_SECONDS if good else min(2 * retry, self._period)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wanted.wait()

    async def _fetch(self, client: httpx.AsyncClient) -> bool:
        """Take the set as it is now; was there one to take?"""
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                document = await _get(client, self._url)
            keys = tuple(keys_of(document, self._algorithms))
            if not keys:
                raise ValueError("none of its keys is for us")  # it is broken rather than without any
        except (httpx.HTTPError, ValueError, TimeoutError) as error:
            told = "the keys fetched before stay" if self.keys is not None else "its tokens cannot be judged"
            logger.warning("no keys from %s (%r): %s", self._url, error, told)
            return False
        if keys != self.keys:
            self._gone = {key.kid for key in self.keys or ()} - {key.kid for key in keys}
            self.keys = keys
            logger.info("keys of %s have changed", self.name, extra={"keys": len(keys)})
        return True


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    """The body at a URL. Raises ``ValueError`` for anything but a plain answer of bounded size."""
    async with client.stream("GET", url) as response:
        if response.status_code != 200:
            raise ValueError(f"status {response.status_code}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ValueError("it is compressed, against what was asked for")
        body = b""
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > SET_BYTES:
                raise ValueError(f"more than {SET_BYTES} bytes")
        return body


def keys_of(document: bytes, algorithms: Iterable[str]) -> list[Key]:
    """The keys of a set that may verify signatures of these algorithms; others are passed over.

    Raises:
        ValueError: it is not a key set, or holds too many keys.
    """
    try:
        found = msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("not a key set: it has no list of keys")
    if len(listed) > SET_KEYS:
        raise ValueError(f"more than {SET_KEYS} keys")
    keys = (_key(one) for one in listed if isinstance(one, dict))
    return [key for key in keys if key is not None and key.algorithm in algorithms]


def _key(jwk: dict[str, Any]) -> Key | None:
    """The key of one JWK, or ``None`` if it is not for verifying signatures, or is weak, secret or broken."""
    kid, operations = jwk.get("kid"), jwk.get("key_ops")
    reader = _READERS.get(jwk["kty"]) if isinstance(jwk.get("kty"), str) else None
    if (
        reader is None  # among them "oct": a secret that is published is none
        or "d" in jwk  # so is a private key
        or jwk.get("use", "sig") != "sig"
        or (operations is not None and (not isinstance(operations, list) or "verify" not in operations))
        or (kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= KID_CHARACTERS))
    ):
        return None
    try:
        public = reader(jwk)
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
        return None
    algorithm = algorithm_of(public)
    return Key(algorithm, public, kid) if jwk.get("alg", algorithm) == algorithm else None
