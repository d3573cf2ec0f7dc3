"""The forms of fields, as the documentation shows them.

Nothing is refused for them: ``texts.py`` and ``auth/policy.py`` judge, each update of a batch alone. What a
JSON Schema cannot say stands in words: that characters must be visible, and how many bytes they may take.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from scoreboard.texts import KEY_ID_PATTERN, NAME_CHARACTERS, TYPE_PATTERN, UNIQUE_PATTERN, USER_ID_CHARACTERS

_VISIBLE = r"^\S(.*\S)?$"
_JWT = r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"

USER_ID = {"minLength": 1, "maxLength": USER_ID_CHARACTERS, "pattern": _VISIBLE}
TYPE = {"pattern": f"^{TYPE_PATTERN}$"}
UserId = Annotated[str, Meta(extra_json_schema=USER_ID, examples=["ann"])]
Type = Annotated[str, Meta(extra_json_schema=TYPE, examples=["boss-kill"])]
ActionId = Annotated[str, Meta(extra_json_schema={"pattern": f"^({TYPE_PATTERN}:{UNIQUE_PATTERN}|{_JWT})$"})]
Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS, extra_json_schema={"pattern": _VISIBLE})]
KeyId = Annotated[str, Meta(extra_json_schema={"pattern": f"^{KEY_ID_PATTERN}$"})]
# As long as the configuration lets it be. PostgreSQL's text takes no NUL, and a command must never fail.
Issuer = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Duration = Annotated[str, Meta(extra_json_schema={"pattern": "^0*[1-9][0-9]{0,8}[smhd]$"})]
REASON_CHARACTERS = 500
Reason = Annotated[str, Meta(max_length=REASON_CHARACTERS, description="Why. Kept in the audit.")]
