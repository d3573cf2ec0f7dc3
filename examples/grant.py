"""Sign a grant in your backend: python grant.py private.pem USER ACTION. Needs the package pyjwt[crypto]."""

import sys
import time
import uuid
from pathlib import Path

import jwt


def grant(private_pem: str, user: str, action: str, seconds: int = 900) -> str:
    """What the user submits as its actionId, once, within so many seconds."""
    now = int(time.time())
    claims = {
        "iss": "game-server",  # the issuer of [[auth.grant_issuers]]
        "aud": "scoreboard",
        "sub": user,  # who may have the points
        "act": action,  # for what
        "jti": str(uuid.uuid4()),  # this one completion: the same id counts once, for ever
        "iat": now,
        "exp": now + seconds,
    }
    return jwt.encode(claims, private_pem, algorithm="EdDSA", headers={"typ": "sb-grant+jwt"})


if __name__ == "__main__":
    print(grant(Path(sys.argv[1]).read_text(), sys.argv[2], sys.argv[3]))
