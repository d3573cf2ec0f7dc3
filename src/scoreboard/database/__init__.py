"""The database: ledger, totals and cursor (PostgreSQL). The truth, of which the board is a picture.

In come reads of events, users, keys and board rows; the applying transaction itself is in ``ledger.py``.
Out go values of the model. Driver exceptions leave this package as ``DatabaseUnavailable`` or ``BadData``,
or for a wrong URL ``ConfigurationError``.
It must never change a row of ``events``, nor a total without the event that explains it.

``reading.py`` is what all roles read, ``migrating.py`` brings the schema up to this version, ``server.py`` is
the connection, and what every session of ours is told. Schema and statements are in ``sql/``.
"""

from scoreboard.database.migrating import migrate
from scoreboard.database.reading import Database, hash_of_key
from scoreboard.database.server import STATEMENTS, closed, connect, translated

__all__ = ["STATEMENTS", "Database", "closed", "connect", "hash_of_key", "migrate", "translated"]
