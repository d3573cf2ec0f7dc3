"""``POST /update-score`` and ``POST /update-scores``: the door, and the hot path.

In comes a request; out goes 202 once its update is synced to disk in the queue, 200 once it has been applied
(``Prefer: wait``), or a problem. The order of the decisions is fixed (DESIGN section 2), cheapest first. It
must never answer 202 for what is not on disk, and never take points from a request.

``UpdateScore`` is a bare ASGI application for the one route: the framework around a handler costs more than
all the work in it. Most requests do not even get that far: ``AtOnce`` (at_once.py) answers them on the
connection. The documented handlers in ``updates.py`` call the same ``submit``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from functools import partial
from itertools import islice
from typing import Annotated, Any, TypeAlias

import msgspec
from asyncpg.pgproto.pgproto import UUID
from msgspec import Meta, Struct

from scoreboard import metrics
from scoreboard.api.bodies import (
    Receive,
    Send,
    parse_strictly,
    parsed,
    read_body,
    refuse_duplicate_keys,
    respond,
)
from scoreboard.api.forms import ActionId, UserId
from scoreboard.api.outcomes import Outcomes
from scoreboard.api.problems import MEDIA_TYPE, headers_of, problem_apart, problem_of
from scoreboard.api.straight import BODY_BYTES
from scoreboard.auth import Auth
from scoreboard.auth.keyring import NotYetKnown, once_more
from scoreboard.auth.policy import Policy, insufficient
from scoreboard.errors import Problem
from scoreboard.group_commit import GroupCommit, partition_of
from scoreboard.model import Principal, Scope, Update

BATCH_BYTES = 2 * 1024 * 1024
BATCH_UPDATES = 1_000
WAIT_SECONDS = 10.0  # the longest that Prefer: wait is honoured
_PREFERENCE = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,"])+')  # between commas that are not in a quoted text
_WAIT = re.compile(r"wait\s*=\s*\"?0*(\d+)\"?", re.IGNORECASE)

Scope_ = MutableMapping[str, Any]


class Submission(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A completed action, as a client reports it."""

    # How long they may be is the policy's to say, so that in a batch it is said of the one that is wrong.
    user_id: Annotated[UserId, Meta(description="Whose score rises: 1 to 128 visible characters.")]
    action_id: Annotated[ActionId, Meta(description="`type:unique`, e.g. `match-win:8812`; or a grant.")]


class Answer(Struct, frozen=True):
    """The answer to one update: a status and a body."""

    status: int
    body: Any


class Accepted(Struct, frozen=True, rename="camel"):
    """202: synced to disk; will reach exactly one end state."""

    status: str
    event_id: str


Told: TypeAlias = Callable[[Accepted | Problem], None]
"""Whom to tell what is to be said of an update."""
_submission = msgspec.json.Decoder(Submission)
_submissions = msgspec.json.Decoder(list[Submission])
_encode = msgspec.json.Encoder().encode


class UpdateScore:
    """The door. An ASGI application for ``POST /update-score``."""

    def __init__(self, auth: Auth, policy: Policy, commit: GroupCommit, outcomes: Outcomes) -> None:
        self.auth, self.policy, self._commit, self._outcomes = auth, policy, commit, outcomes
        self._accepted = metrics.Tally(metrics.REQUESTS.labels("accepted"))

    async def __call__(self, scope: Scope_, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])
        try:
            body = await read_body(headers, receive, BODY_BYTES)
            submission = parse(body)
            principal = await self.auth.who(scope)
            wait = 0
            if b"prefer" in headers:
                wait = wait_of([v.decode("latin-1") for k, v in scope["headers"] if k == b"prefer"])
            answer = await self.submit(principal, submission, wait)
        except Exception as error:
            problem = refused(error)
            extra = [(k.encode(), v.encode()) for k, v in headers_of(problem).items()]
            await respond(send, problem.status, problem.body(), MEDIA_TYPE.encode(), extra)
            return
        metrics.REQUESTS.labels(answer.body.status).inc()
        extra = [(b"preference-applied", b"wait=%d" % wait)] if wait and answer.status == 200 else []
        await respond(send, answer.status, answer.body, b"application/json", extra)

    def enter(self, update: Update, tell: Told) -> None:
        """Have an update accepted; ``tell`` is called with what is to be said, now or later."""
        told = partial(self._entered, update, tell)
        try:
            self._commit.enter((update,), told)
        except Exception as error:
            told(1, error)

    def _enter_all(self, updates: Sequence[Update], tell: Sequence[Told]) -> None:
        """As ``enter``, for updates of one partition; for each there is one to be called."""
        if not updates:
            return
        told = partial(self._all_entered, zip(updates, tell, strict=True))
        try:
            self._commit.enter(updates, told)
        except Exception as error:
            told(len(updates), error)

    def _entered(self, update: Update, tell: Told, _: int, error: Exception | None) -> None:
        event_id = str(UUID(update.event_id))
        if error is not None:
            tell(refused(error, event_id))
            return
        self._outcomes.remember(update.event_id, update.user)
        self._accepted.inc()
        tell(Accepted("accepted", event_id))

    def _all_entered(self, each: Iterator[tuple[Update, Told]], count: int, error: Exception | None) -> None:
        for update, tell in list(islice(each, count)):  # whatever goes wrong, the others are the next part's
            self._entered(update, tell, 1, error)

    async def submit(self, principal: Principal, submission: Submission, wait: float = 0) -> Answer:
        """Decide on one update and have it accepted.

        Args:
            principal: who asks.
            submission: whose action it is said to be.
            wait: how many seconds to wait for the outcome.

        Raises:
            Problem: it is refused here.
            QueueFull: it was not accepted.
            Unavailable: whether it was accepted is not known.
        """
        user_id, action_id = submission.user_id, submission.action_id
        try:
            update = self.policy.decide(principal, user_id, action_id)
        except NotYetKnown as unknown:
            update = await once_more(
                unknown, lambda: self.policy.decide(principal, user_id, action_id), "invalid_grant"
            )
        event_id = UUID(update.event_id)
        if not wait or not self._outcomes.room:
            await self._accept(update, wanted=False)
            return Answer(202, Accepted("accepted", str(event_id)))
        outcome = self._outcomes.wait_for(event_id)
        try:
            await self._accept(update, wanted=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait, WAIT_SECONDS)):
                    return Answer(200, await outcome)
        finally:
            self._outcomes.forget(event_id, outcome)
        return Answer(202, Accepted("accepted", str(event_id)))

    async def _accept(self, update: Update, *, wanted: bool) -> None:
        try:
            await self._commit.accept(update, wanted=wanted)
        except Exception as error:
            raise problem_of(error, str(UUID(update.event_id))) from error
        self._outcomes.remember(update.event_id, update.user)

    async def submit_all(
        self, principal: Principal, submissions: Sequence[Submission], wait: float = 0
    ) -> list[Any]:
        """What each of many updates would have been answered alone, in their order.

        Raises:
            Problem: ``insufficient_scope``: only a service with ``score:write`` may send many.
        """
        if principal.kind != "service" or Scope.SCORE_WRITE not in principal.scopes:
            raise insufficient(Scope.SCORE_WRITE)

        async def ask(place: int, submission: Submission) -> None:
            try:
                answer = await self.submit(principal, submission, wait)
            except Exception as error:
                answers.put(place, refused(error))
            else:
                metrics.REQUESTS.labels(answer.body.status).inc()
                answers.put(place, answer.body)

        answers, partitions = _Answers(len(submissions)), self._commit.partitions
        accepting: defaultdict[int, tuple[list[Update], list[Told]]] = defaultdict(lambda: ([], []))
        async with asyncio.TaskGroup() as tasks:
            for place, submission in enumerate(submissions):
                user_id, action_id = submission.user_id, submission.action_id
                if wait or ":" not in action_id:  # its outcome, or a grant's key, may have to be waited for
                    tasks.create_task(ask(place, submission))
                    continue
                try:
                    update = self.policy.decide(principal, user_id, action_id)
                except Exception as error:
                    answers.put(place, refused(error))
                else:
                    updates, tell = accepting[partition_of(user_id, partitions)]
                    updates.append(update)
                    tell.append(partial(answers.put, place))
            for updates, tell in accepting.values():
                room = self._commit.room
                self._enter_all(updates[:room], tell[:room])
                self._enter_all(updates[room:], tell[room:])  # each is refused, as it would be alone
            return await answers.all


class _Answers:
    """What is to be said of each of many updates, in their order."""

    def __init__(self, count: int) -> None:
        self._bodies: list[Any] = [None] * count
        self._left = count
        self.all: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        if not count:
            self.all.set_result([])

    def put(self, place: int, answer: Any) -> None:
        """Of one there is an answer, or a problem."""
        self._bodies[place] = answer.body() if isinstance(answer, Problem) else answer
        self._left -= 1
        if not self._left and not self.all.done():
            self.all.set_result(self._bodies)


def refused(error: Exception, event_id: str | None = None) -> Problem:
    """The problem that tells of an error; it is counted."""
    problem = problem_apart(error, event_id)
    metrics.REQUESTS.labels(problem.code).inc()
    return problem


def parse(body: bytes) -> Submission:
    """One submission, strictly.

    Raises:
        Problem: ``malformed_json``, ``unknown_field`` or ``invalid_field``.
    """
    return parse_strictly(_submission.decode, body, 8)


def parse_all(body: bytes) -> list[Submission]:
    """An array of up to ``BATCH_UPDATES`` submissions, strictly. Raises ``Problem`` as ``parse`` does."""
    submissions = parsed(_submissions.decode, body)
    if len(submissions) > BATCH_UPDATES:
        raise Problem("payload_too_large", f"A request may have {BATCH_UPDATES} updates at most.")
    refuse_duplicate_keys(body, 8 * len(submissions))
    return submissions


def wait_of(lines: Iterable[str]) -> int:
    """The whole seconds of ``Prefer: wait=N`` (RFC 7240), at most ``WAIT_SECONDS``; 0 without it."""
    for preference in _PREFERENCE.findall(",".join(lines)):
        if found := _WAIT.fullmatch(preference.partition(";")[0].strip()):
            return int(min(int(found[1][:9]), WAIT_SECONDS))
    return 0


def applied(wait: int) -> dict[str, str]:
    """The header that says that the answer was waited for."""
    return {"preference-applied": f"wait={wait}"} if wait else {}
