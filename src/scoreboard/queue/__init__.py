"""The queue: an ordered log on disk (NATS JetStream). Envelopes in, envelopes out.

A publish answers once the message is synced to disk (``sync_interval: always``), with its place in the one
order of acceptance. Reading goes in that order from any place, without acknowledgements: what has been
read is the database's to remember. Limits retention with ``discard: new``: at its bound the log refuses
what is new and never drops what is old; the worker trims what has been applied.

Driver exceptions leave this package as ``Unavailable`` or ``QueueFull`` only.

``publishing.py`` puts envelopes into the log, ``reading.py`` gets them out again, ``log.py`` makes the log
and knows what it holds, ``server.py`` is the connection to NATS, and asks it how it is.
"""

from scoreboard.queue.log import Logged, State
from scoreboard.queue.publishing import Queue

__all__ = ["Logged", "Queue", "State"]
