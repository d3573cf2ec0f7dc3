"""The API: all HTTP of the flow's first stage.

update_score.py   the door, and the hot path
updates.py        updates, events and names as documented handlers
outcomes.py       who waits for which event
boards.py         reads
health.py         how things are
docs.py, pages.py the documentation and the page
problems.py       how every error is answered
"""
