"""What the OpenAPI document says in words, for a schema cannot: a hook of Schemathesis (test_openapi.py)."""

from __future__ import annotations

from typing import Any

import schemathesis

WORDS = (
    "must not hold control or invisible formatting characters",
    "must hold a character that can be seen",
    "bytes of UTF-8",  # a user id has characters, and bytes
    "expiresIn must be",  # a day at most, in whichever unit
    "outside the years 1 to 9999",  # a time in a zone may be none in UTC
    "Say which events",  # of a selection at least one member
    "cursor is not one of",  # it is the `next` of an answer
    "got `float`",  # to a schema 5.0 is an integer
)


@schemathesis.hook
def filter_failure(_context: Any, failure: Any, _case: Any, response: Any) -> bool:
    """Does a failure count? Not if a request of the right form was refused for what the words say."""
    refused = type(failure).__name__ == "RejectedPositiveData" and response.status_code == 400
    return not (refused and any(word in response.json()["detail"] for word in WORDS))
