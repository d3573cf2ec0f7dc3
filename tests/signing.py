"""Issuers of the tests' own: keys, what they sign, and a real server for their key sets."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)  # slow to make, so made once


class Signer:
    """A key pair with its algorithm and its name."""

    def __init__(self, algorithm: str = "EdDSA", kid: str | None = None) -> None:
        self.algorithm, self.kid = algorithm, kid
        self.private: Any = RSA_KEY
        if algorithm == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
        elif algorithm == "ES256":
            self.private = ec.generate_private_key(ec.SECP256R1())

    @property
    def pem(self) -> str:
        """The public key."""
        public: bytes = self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return public.decode()

    @property
    def private_pem(self) -> str:
        """The private key."""
        private: bytes = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return private.decode()

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key as its issuer publishes it."""
        family: Any = {"EdDSA": OKPAlgorithm, "ES256": ECAlgorithm, "RS256": RSAAlgorithm}[self.algorithm]
        found: dict[str, Any] = json.loads(family.to_jwk(self.private.public_key()))
        found.pop("key_ops", None)
        return found | {"use": "sig", "alg": self.algorithm} | ({"kid": self.kid} if self.kid else {})

    def sign(self, claims: dict[str, Any], **headers: Any) -> str:
        """Claims as a compact JWT; a claim of ``None`` is left out."""
        given = {name: value for name, value in claims.items() if value is not None}
        if self.kid is not None:
            headers.setdefault("kid", self.kid)
        return jwt.encode(given, self.private, algorithm=self.algorithm, headers=headers)

    def token(self, *, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """A user's token, with changes."""
        claims: dict[str, Any] = {"iss": "https://id.example", "aud": "scoreboard", "sub": "ann"}
        claims |= {"iat": now(), "exp": now() + 3_600}
        return self.sign(claims | changes, **(headers or {}))

    def grant(self, *, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """A grant, with changes."""
        claims = {
            "iss": "game-server",
            "aud": "scoreboard",
            "sub": "ann",
            "act": "boss-kill",
            "jti": "one",
            "iat": now(),
            "exp": now() + 3_600,
        }
        return self.sign(claims | changes, **{"typ": "sb-grant+jwt", **(headers or {})})


def now() -> int:
    """The time, as claims tell it: when a token is made, not when its test was collected."""
    return int(time.time())


def part(value: Any) -> str:
    """One part of a JWT, as anybody may write it."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class KeyServer:
    """Publishes a key set over HTTP, counts who asks, and fails in the ways that servers fail."""

    def __init__(self) -> None:
        self.url = ""
        self.asked = 0
        self.answer: bytes | None = b""
        """What is sent; ``None``: nothing, and the connection stays open."""
        self.drips = False
        """Does the answer come a byte at a time, without end?"""

    def publish(self, *keys: dict[str, Any]) -> None:
        """Answer with this key set from now on."""
        self.send(json.dumps({"keys": keys}).encode())

    def send(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        """Answer like this from now on."""
        lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers)
        self.answer = "\r\n".join((*lines, "", "")).encode() + body
        self.drips = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if self.answer is None:
                await reader.read()
            elif self.drips:
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                while not reader.at_eof():
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            else:
                writer.write(self.answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[KeyServer]:
        """Listen on loopback for as long as the block runs."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
        async with server:
            yield self
