"""Fault after fault under load: healed within seconds, then audited, then the next. And the table of it all.

In: how many faults, of which kinds, and a seed. Out: a report; what was not kept is told at once and counted.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from scoreboard.board import Board
from scoreboard.database import Database
from scoreboard.model import Frame
from torture.auditor import SETTLE_SECONDS, Auditor
from torture.faults import FAULTS, Skipped, Torture
from torture.load import PROBE, Load, loading
from torture.system import System, running
from torture.told import Flaw, Kind, Screen, Told

HEALED_SECONDS = 10.0  # after the end of a fault all is well again within this
PATIENCE_SECONDS = 60.0  # beyond, what is broken stays broken: the run ends
BEFORE_SECONDS = (0.3, 1.5)  # load before the next fault
POLL_SECONDS = 0.02
FLAWS_SHOWN = 10


class Suffered(Struct, frozen=True):
    """One fault and what came of it."""

    kind: str
    promised: int
    """Actions that were promised an end state in its time."""
    healed: float
    """Seconds from its end until all was well."""
    flaws: Sequence[Flaw]


class Report:
    """What happened in a run."""

    def __init__(self) -> None:
        self.suffered: list[Suffered] = []
        self.skipped: dict[str, str] = {}
        self.told = Told()

    @property
    def broken(self) -> set[Kind]:
        """The kinds of promises that were not kept."""
        return {flaw.kind for one in self.suffered for flaw in one.flaws}

    def lines(self) -> list[str]:
        """The table, in Markdown."""
        head = ("fault", "times", "acknowledged", "lost", "doubled", "drift", "other", "p50 s", "worst s")
        rows = [head, ("---", *["---:"] * (len(head) - 1))]
        rows += [_row(kind, found) for kind in FAULTS if (found := self._of(kind))]
        rows += [_row("**all**", self.suffered)] if self.suffered else []
        lines = [f"| {' | '.join(row)} |" for row in rows]
        lines += [f"skipped: {kind}: {why}" for kind, why in self.skipped.items()]
        refused = ", ".join(f"{code} {number}" for code, number in self.told.refusals.most_common())
        lines.append(f"not answered, and sent again: {refused or 'nothing'}")
        return lines

    def _of(self, kind: str) -> list[Suffered]:
        return [one for one in self.suffered if one.kind == kind]


def _row(kind: str, suffered: Sequence[Suffered]) -> tuple[str, ...]:
    flaws: list[str] = [flaw.kind for one in suffered for flaw in one.flaws]
    named = ("lost", "doubled", "drift")
    healed = [one.healed for one in suffered]
    return (
        *(kind, str(len(suffered)), f"{sum(one.promised for one in suffered):,}"),
        *(str(flaws.count(name)) for name in named),
        str(sum(flaw not in named for flaw in flaws)),
        *(f"{statistics.median(healed):.1f}", f"{max(healed):.1f}"),
    )


async def run(
    home: Path,
    command: Sequence[str],
    *,
    faults: int,
    seed: int,
    kinds: Sequence[str],
    disks: bool,
    to_the_end: bool,
    say: Callable[[str], None],
) -> Report:
    """Torture a deployment.

    Args:
        home: an empty folder.
        command: what starts ``scoreboard``, without its subcommand.
        faults: how many.
        seed: of the order of the faults, and of moments. What happens in between is the machine's.
        kinds: of ``FAULTS``; each comes as often as the others.
        disks: may each engine have a small file system of its own?
        to_the_end: go on after a promise was broken?
        say: takes a line for each fault.
    """
    # The order of the faults is the seed's alone; what else is drawn depends on what is there, and when.
    report, order, chance = Report(), random.Random(seed), random.Random(seed)
    async with running(home, command, disks=disks) as system:
        screens = {
            system.url: Screen("screen", report.told),
            system.second_live_url: Screen("second", report.told),
        }
        async with (
            Database.open(system.urls.database) as database,
            loading(system, report.told, screens, random.Random(seed)) as load,
        ):
            board = Board(system.urls.board, system.config, await database.identity())
            settle = SETTLE_SECONDS if to_the_end else SETTLE_SECONDS / 2
            auditor = Auditor(system.config, database, board, report.told, settle)
            torture, probes = Torture(system, load, chance), Probes(system, load, list(screens.values()))
            await probes.well()
            deck: list[str] = []
            left = list(kinds)
            try:
                while len(report.suffered) < faults and left:
                    deck = deck or order.sample(left, len(left))
                    kind = deck.pop()
                    try:
                        one = await _suffer(kind, torture, probes, auditor, report.told)
                    except Skipped as why:
                        report.skipped[kind] = str(why)
                        left.remove(kind)
                        continue
                    report.suffered.append(one)
                    say(f"{len(report.suffered):4} {_said(one)}")
                    if one.healed >= PATIENCE_SECONDS or (one.flaws and not to_the_end):
                        break
            finally:
                await board.close()
    return report


async def _suffer(kind: str, torture: Torture, probes: Probes, auditor: Auditor, told: Told) -> Suffered:
    before = told.promised
    await torture.some_time(BEFORE_SECONDS)
    flaws = []
    try:
        await FAULTS[kind](torture)
    except TimeoutError:
        flaws.append(Flaw("healing", f"{kind}: nobody took over"))
    healed = await probes.well()
    if healed > HEALED_SECONDS:
        flaws.append(Flaw("healing", f"{kind}: not well {HEALED_SECONDS:.0f} s after its end"))
    await torture.load.rest()
    # The log has one order: what was promised before this and is not in the ledger after it is lost.
    if await probes.well() > HEALED_SECONDS:
        flaws.append(Flaw("healing", f"{kind}: not well when nobody else asked"))
    flaws += await auditor.audit(probes.screens)
    torture.load.going.set()
    return Suffered(kind, told.promised - before, healed, flaws)


def _said(one: Suffered) -> str:
    line = f"{one.kind:32} {one.promised:5} acknowledged, well after {one.healed:4.1f} s"
    shown = [f"     {flaw.kind}: {flaw.text}" for flaw in one.flaws[:FLAWS_SHOWN]]
    more = len(one.flaws) - len(shown)
    return "\n".join([line, *shown, *([f"     and {more} more"] if more else [])])


class Probes:
    """Finds out whether all is well: what is reported at either door counts, and is seen on every screen."""

    def __init__(self, system: System, load: Load, screens: Sequence[Screen]) -> None:
        self._doors, self._load, self.screens = (system.url, system.second_url), load, screens

    async def well(self) -> float:
        """Seconds until all was well, from now; at most ``PATIENCE_SECONDS``."""
        began = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(*(self._through(door) for door in self._doors))
        return time.monotonic() - began

    async def _through(self, door: str) -> None:
        while (score := await self._load.probe(door)) is None:
            await asyncio.sleep(POLL_SECONDS)
        while not all(_shows(screen.newest, score) for screen in self.screens):
            await asyncio.sleep(POLL_SECONDS)


def _shows(frame: Frame | None, score: int) -> bool:
    return frame is not None and any(line.user_id == PROBE and line.score >= score for line in frame.top)
