"""Services of NATS' system account: what a queue asks them, and what a server of ours must import for that.

In a module of its own, so that who starts NATS need not import what talks to it.
"""

ASKED = SYNCS, HEALTH = ("$SYS.REQ.SERVER.PING.VARZ", "$SYS.REQ.SERVER.PING.HEALTHZ")
"""Does it sync, can it write?"""
