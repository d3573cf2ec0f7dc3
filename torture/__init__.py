"""Torture: a deployment under load and faults, and an auditor that checks what was promised.

``python -m torture --faults N --seed S`` starts a real ``scoreboard up`` and, behind proxies, an api, a live
and a worker as on a second machine. It sends updates, brings about faults at random moments, waits after each
until all is well again, and audits. What happened is told in a table; exit status 1 if a promise was broken.

    told.py      what the clients sent, what they were answered, what their screens showed
    auditor.py   does it agree with ledger, totals, board? The invariants
    load.py      the clients
    system.py    everything that runs, and how it is reached
    proxy.py     a network that can be slow, silent, cut
    clock.py     another time for one process
    faults.py    what can go wrong
    run.py       fault after fault, and the table
    broken.py    the product with one guarantee broken: what the auditor is there to tell

Nothing in here is part of the product, and the product knows nothing of it.
"""
