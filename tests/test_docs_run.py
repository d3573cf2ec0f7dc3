"""What documents show works as written: the commands of the README, the quickstart and the example."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from deployment import SECONDS
from documents import ROOT, SERVED, text_of
from processes import Program, environment, started


class Walk:
    """A reader who does what a document says: its marked blocks, in order, in one folder and one shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program: Program | None = None
        (folder / ".venv").mkdir()
        (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with started("up", "--port", "0", cwd=self.folder) as program:
            await program.ready()
            self.program = program
            yield

    async def run(self, block: str) -> str:
        """Run a block as it stands, but for the port; its output."""
        if self.program is not None:
            block = block.replace(SERVED, self.program.url)
        # Variables that one block sets are there in the next.
        script = f"set -euo pipefail -o allexport; touch vars; . ./vars\n{block}\nexport -p > vars"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            cwd=self.folder,
            env=environment({"PATH": path}),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 3 * SECONDS)
        assert process.returncode == 0, f"{block}\n{out.decode()}{err.decode()}"
        return out.decode()


STEP = re.compile(
    r"^<!-- serve -->$|^<!-- run -->\n```sh\n(.*?)^```\n(?:\n```(?:json|text)\n(.*?)^```)?",
    re.DOTALL | re.MULTILINE,
)


async def walk(document: str, folder: Path, *, served: bool) -> int:
    """Follow a document: every block runs, and prints what stands below it. How many there were."""
    steps = 0
    reader = Walk(folder)
    async with AsyncExitStack() as stack:
        if served:
            await stack.enter_async_context(reader.serving())
        for step in STEP.finditer(text_of(document)):
            if step[1] is None:
                await stack.aclose()
                await stack.enter_async_context(reader.serving())
                continue
            steps += 1
            out = await reader.run(step[1])
            if step[2] is not None:
                pattern = re.escape(step[2]).replace("…", ".*")  # "…" stands for what differs each time
                assert re.fullmatch(pattern, out if out.endswith("\n") else f"{out}\n"), out
    return steps


async def test_the_commands_of_the_readme_work_as_written(tmp_path: Path) -> None:
    assert await walk("README.md", tmp_path, served=True) == 2


async def test_the_quickstart_works_as_written(tmp_path: Path) -> None:
    assert await walk("docs/quickstart.md", tmp_path, served=False) == 9


async def test_the_example_replays_a_history_and_compares(tmp_path: Path) -> None:
    program = (sys.executable, str(ROOT / "examples" / "redis-history" / "replay.py"))
    async with started("--port", "0", "--speed", "1e9", "--exit", cwd=tmp_path, program=program) as example:
        out, _ = await asyncio.wait_for(example.process.communicate(), 3 * SECONDS)
        assert example.process.returncode == 0
        assert "12272 applied" in out.decode()
        assert "As expected: 840 users, 21970 points" in out.decode()
