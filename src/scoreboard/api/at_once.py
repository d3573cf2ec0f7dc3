"""``POST /update-score``, the straight way: who asks is known here, and all that is waited for is the disk.

The decisions are those of ``UpdateScore.__call__``, in the same order. A token that is seen for the first
time, a key that must be looked up and a grant are for that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec
from asyncpg.pgproto.pgproto import UUID

from scoreboard.api.straight import Request, answer_of, head_of
from scoreboard.api.update_score import Accepted, UpdateScore, parse, refused
from scoreboard.auth import Known
from scoreboard.errors import Problem

_encode = msgspec.json.Encoder().encode
_HEAD = head_of(
    202,
    [
        ("content-type", "application/json"),
        ("content-length", str(len(_encode(Accepted("accepted", str(UUID(bytes(16)))))))),
    ],
)


class AtOnce:
    """The handler of ``POST /update-score`` on the straight way."""

    keeps = True

    def __init__(self, door: UpdateScore) -> None:
        self._door, self._auth, self._policy = door, door.auth, door.policy

    def read(self, _: bytes, headers: Mapping[bytes, bytes], /) -> tuple[Known, Sequence[str]] | None:
        """Where to look who asks, and from where it was forwarded."""
        authorization = headers.get(b"authorization")
        if authorization is None or headers.get(b"content-type") != b"application/json":
            return None
        known = self._auth.knowing(authorization.decode("latin-1"))
        forwarded = headers.get(b"x-forwarded-for")
        return None if known is None else (known, () if forwarded is None else (forwarded.decode("latin-1"),))

    def __call__(self, request: Request) -> bool:
        """Have an update accepted, and answer then; or refuse it."""
        try:
            submission = parse(request.body)
            if ":" not in submission.action_id:
                return False  # a grant: whose key signed it may have to be asked for
            known, forwarded = request.said
            principal = known()
            if principal is None:
                return False
            self._auth.within_limits(principal, request.peer, forwarded)
            update = self._policy.decide(principal, submission.user_id, submission.action_id)
        except Exception as error:
            _answer(request, refused(error))
        else:
            self._door.enter(update, partial(_answer, request))
        return True


def _answer(request: Request, what: Accepted | Problem) -> None:
    if isinstance(what, Problem):
        request.answer(*answer_of(what))
    else:
        request.answer(_HEAD, _encode(what))
