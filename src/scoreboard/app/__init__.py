"""The wiring: which stages one process runs, and how they are put together. The only such place.

In come the configuration and the environment, and for a role that serves a listening socket; out goes a role
that runs until it is told to stop. It must never do a stage's work itself.

``starting.py`` is what a role begins with, ``serving.py`` wires a process that serves, ``working.py`` a
worker, ``running.py`` runs a role as a process. ``python -m scoreboard.app`` is ``__main__.py``. Nothing is
imported here: each role brings what it needs and no more, so that it starts, and comes back, soon.
"""
