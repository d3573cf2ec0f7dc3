"""The documents say what is so: every setting, code, command and metric, and every example that runs."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import click
import msgspec
import pytest
from prometheus_client import REGISTRY

import scoreboard
from deployment import SECONDS
from processes import Program, environment, started
from scoreboard import cli, config, issuers
from scoreboard.config.places import URLS
from scoreboard.errors import PROBLEMS
from scoreboard.event_ids import event_id_of_action
from scoreboard.live import inbound, watcher

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("deploy/**/*.md"),
    ]
)
TEXTS = [
    *DOCUMENTS,
    *(ROOT / name for name in ("Dockerfile", "compose.yaml", ".dockerignore")),
    *(
        path
        for name in ("deploy", "examples")
        for path in sorted((ROOT / name).rglob("*.*"))
        if path.suffix != ".pyc"
    ),
]
SERVED = "http://127.0.0.1:8000"  # where the documents suppose that it serves
CODE = r"`([^`]+)`"
VALUES = {f"SCOREBOARD_{name.upper()}": example for name, (_, example) in URLS.items()}


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next of its rank or above."""
    level = len(heading) - len(heading.lstrip("#"))
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{level}}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"no heading {heading!r}"
    return found[1]


def first_cells(text: str) -> list[str]:
    """The code words in the first cells of all tables."""
    return [word for row in re.findall(r"^\| (.*?) \|", text, re.MULTILINE) for word in re.findall(CODE, row)]


# What there is, and what the documents say there is.


def tables() -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """Each table of the configuration file: its heading in the document, its type."""
    yield "## Top level", config.Config
    yield "## `[actions.NAME]`", config.Action
    yield "## `[boards.NAME]`", config.Board
    yield "## `[[auth.issuers]]`", issuers.Issuer
    for item in msgspec.structs.fields(config.Config):
        if inspect.isclass(item.type) and issubclass(item.type, msgspec.Struct):
            yield f"## `[{item.name}]`", item.type


@pytest.mark.parametrize(("heading", "table"), [pytest.param(*one, id=one[0]) for one in tables()])
def test_every_setting_is_documented_and_none_that_does_not_exist(
    heading: str, table: type[msgspec.Struct]
) -> None:
    documented = first_cells(section(text_of("docs/configuration.md"), heading))
    settings = [name for name in table.__struct_encode_fields__ if "(" not in name]
    assert sorted(documented) == sorted(settings)


def test_every_default_is_documented() -> None:
    text = text_of("docs/configuration.md")
    for heading, table in tables():
        for item in msgspec.structs.fields(table):
            if isinstance(item.default, str | int):
                row = re.search(rf"^\| `{item.name}` \|.*$", section(text, heading), re.MULTILINE)
                assert row, item.name
                assert f"`{json.dumps(item.default)}`" in row[0], f"{heading} {item.name}"


# Limits that the document gives in words.
WORDS = {
    ("points", "minimum"), ("points", "maximum"), ("issuer", "minLength"), ("audience", "minLength"),
}  # fmt: skip


def test_every_limit_is_documented() -> None:
    text = text_of("docs/configuration.md")
    for heading, table in tables():
        for name, found in msgspec.json.schema(table)["$defs"][table.__name__]["properties"].items():
            for one in (found, *found.get("anyOf", ())):
                for limit in ("minimum", "maximum", "minLength", "maxLength"):
                    if limit in one and (name, limit) not in WORDS:
                        row = re.search(rf"^\| `{name}` \|.*$", section(text, heading), re.MULTILINE)
                        assert row, name
                        assert re.search(rf"\b{one[limit]}\b", row[0]), f"{heading} {name} {limit}"


def test_every_variable_is_documented_and_each_documented_one_exists() -> None:
    text = section(text_of("docs/configuration.md"), "## Variables")
    documented = [word for word in first_cells(text) if word.startswith("SCOREBOARD_")]
    places = {f"SCOREBOARD_{name}".upper() for name in config.Environment.__struct_fields__}
    settings = {
        f"SCOREBOARD_{name.replace('.', '_')}".upper()
        for row in re.findall(r"^\| `SCOREBOARD_\w+` \| `([a-z_.]+)` \|$", text, re.MULTILINE)
        for name in [row]
    }
    assert set(documented) == places | settings
    for variable in documented:
        config.environment(
            {variable: VALUES.get(variable, "x" * issuers.SECRET_BYTES)}
        )  # raises for one that means nothing
    for item in msgspec.structs.fields(config.Config):
        inner = item.type if inspect.isclass(item.type) and issubclass(item.type, msgspec.Struct) else None
        for one in msgspec.structs.fields(inner) if inner else ():
            variable = f"SCOREBOARD_{item.name}_{one.name}".upper()
            assert (variable in documented) == (one.name not in ("issuers", "grant_issuers")), variable


def test_variables_named_anywhere_exist() -> None:
    for path in TEXTS:
        if path.suffix == ".csv":
            continue
        for variable in set(re.findall(r"\bSCOREBOARD_[A-Z_]+\b", path.read_text())):
            if not variable.endswith("_"):
                config.environment({variable: VALUES.get(variable, "x" * issuers.SECRET_BYTES)})


def test_every_error_code_is_documented_with_its_status() -> None:
    text = section(text_of("docs/protocol.md"), "## Errors")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (yes|no) \|", text, re.MULTILINE)
    documented = {code: (int(status), retryable == "yes") for status, code, retryable in rows}
    assert documented == {code: (status, retryable) for code, (status, retryable, _) in PROBLEMS.items()}


def test_every_close_code_of_ours_is_documented() -> None:
    text = section(text_of("docs/protocol.md"), "## WebSocket")
    documented = {
        int(code): again == "yes"
        for code, again in re.findall(r"^\| (\d{4}) \| (yes|no) \|", text, re.MULTILINE)
    }
    ours = {
        value
        for module in (watcher, inbound)
        for name, value in vars(module).items()
        if isinstance(value, int) and 4000 <= value < 4500 and not name.endswith("_BYTES")
    }
    assert {code for code in documented if code >= 4000} == ours
    assert documented == {code: code < 4400 for code in documented}
    assert inbound.INVALID_UTF8 in documented


def test_every_metric_is_documented_and_none_that_does_not_exist() -> None:
    text = section(text_of("docs/operations.md"), "## Metrics")
    metrics = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in REGISTRY.collect()
        if family.name.startswith("scoreboard_")
    }
    documented = dict(re.findall(r"^\| `(scoreboard_\w+)` \| (\w+)", text, re.MULTILINE))
    assert documented == metrics


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for below, one in command.commands.items():
            yield from commands(one, f"{name} {below}")


def test_every_command_and_option_is_documented_and_none_that_does_not_exist() -> None:
    text = text_of("docs/commands.md")
    everywhere = set(re.findall(r"--[a-z-]+", text.partition("###")[0]))
    assert everywhere == {"--help", "--config", "--data"}
    there = dict(commands(cli.main, "scoreboard"))
    assert set(re.findall(r"^### `(scoreboard[a-z ]*)`$", text, re.MULTILINE)) == set(there)
    for name, command in there.items():
        body = section(text, f"### `{name}`")
        documented = set(re.findall(r"(?<!scoreboard )--[a-z-]+", body)) - everywhere
        options = {
            opt
            for one in command.params
            for opt in one.opts
            if opt.startswith("--") and opt not in everywhere
        }
        assert options <= documented, name
        assert documented <= options | {"--key"}, name  # `--url` says that it needs `--key`
        for one in command.params:
            # click says with a marker of its own that there is no default.
            if isinstance(one, click.Option) and one.show_default and isinstance(one.default, str | int):
                row = re.search(rf"^\* `{one.opts[0]}.*$", body, re.MULTILINE)
                assert row, name
                assert str(one.default) in row[0], f"{name} {one.opts[0]}"


def test_commands_that_documents_show_exist() -> None:
    there = dict(commands(cli.main, "scoreboard"))
    for path in DOCUMENTS:
        for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                for found in re.finditer(r"(?:^|[\s/(])scoreboard ((?:[a-z]+ )*[a-z]+)?([^#|>)]*)", line):
                    words = [word for word in (found[1] or "").split() if word]
                    names = (" ".join(["scoreboard", *words[:2]]), " ".join(["scoreboard", *words[:1]]))
                    name = next((one for one in names if one in there), None)
                    assert name, f"{path.name}: {line}"
                    known = {opt for one in there[name].params for opt in one.opts} | {"--help", "--version"}
                    assert set(re.findall(r"--[a-z-]+", found[2])) <= known, f"{path.name}: {line}"


def test_make_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    for path in DOCUMENTS:
        named = re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(), re.MULTILINE)
        assert set(named) <= targets, path.name
    assert {"run", "test"} <= set(re.findall(r"^make ([a-z-]+)", text_of("README.md"), re.MULTILINE))


def test_every_module_stands_in_the_code_map() -> None:
    text = text_of("ARCHITECTURE.md")
    assert len(text.splitlines()) <= 150
    folder = Path(scoreboard.__file__).parent
    for path in folder.rglob("*.py"):
        name = path.relative_to(folder)
        mapped = (name.as_posix(), f"{name.parent}/", name.name, name.stem)
        if name.name != "__init__.py":
            assert any(f"`{one}`" in text for one in mapped), f"{name} is not in ARCHITECTURE.md"
    for named in re.findall(r"`([a-z_]+(?:/[a-z_*]+)*\.(?:py|lua|js))`", text):
        # What a browser loads is under web/.
        assert any(found for base in (folder, folder / "web") for found in base.glob(named)), named


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {anchor_of(heading) for heading in headings}, target


def anchor_of(heading: str) -> str:
    """The anchor that a forge gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_documents_name_no_place_of_one_machine() -> None:
    for path in TEXTS:
        if path.suffix not in (".csv", ".json"):
            text = path.read_text()
            for word in (
                "/home/",
                "/root/",
                "/tmp/",  # noqa: S108  a word to look for
                "/Users/",
                str(ROOT),
                "pypi" + ".org",
                "python" + "hosted",
            ):
                assert word not in text, f"{path.name}: {word}"


def test_each_threat_names_a_test_that_exists() -> None:
    rows = re.findall(r"\[(\w+)\.py\]\(\S+\): `(\w+)`", section(text_of("docs/security.md"), "## Threats"))
    assert len(rows) >= 20
    for file, test in rows:
        assert f"def {test}(" in text_of(f"tests/{file}.py"), test


def test_how_to_sign_a_grant_is_shown_as_the_examples_do_it() -> None:
    for language, example in (("python", "examples/grant.py"), ("js", "examples/grant.mjs")):
        for block in blocks("docs/security.md", language):
            for part in block.split("\n\n"):
                assert part.strip() in text_of(example)


def test_the_worked_example_of_an_event_id_is_right() -> None:
    text = section(text_of("docs/protocol.md"), "### Event ids")
    assert f"eventId  {event_id_of_action('ann', 'point:1')}" in text


# What can be run.


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


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(document), re.DOTALL | re.MULTILINE)


async def test_the_example_replays_a_history_and_compares(tmp_path: Path) -> None:
    program = (sys.executable, str(ROOT / "examples" / "redis-history" / "replay.py"))
    async with started("--port", "0", "--speed", "1e9", "--exit", cwd=tmp_path, program=program) as example:
        out, _ = await asyncio.wait_for(example.process.communicate(), 3 * SECONDS)
        assert example.process.returncode == 0
        assert "12272 applied" in out.decode()
        assert "As expected: 840 users, 21970 points" in out.decode()


def test_the_composition_starts_roles_that_exist() -> None:
    text = text_of("compose.yaml") + text_of("Dockerfile") + text_of("deploy/scoreboard.service")
    there = dict(commands(cli.main, "scoreboard"))
    lines = re.findall(r"(?:command: |ExecStart=\S*/)(scoreboard (?:.*\\\n)?.*)", text)
    lines.append(" ".join(json.loads(re.findall(r"^CMD (.*)$", text, re.MULTILINE)[0])))
    assert {line.split()[1] for line in lines} == {"api", "live", "worker", "up"}
    for line in lines:
        known = {opt for one in there[" ".join(line.split()[:2])].params for opt in one.opts}
        assert set(re.findall(r"--[a-z-]+", line)) <= known, line


def test_the_image_leaves_out_the_engines_alone() -> None:
    pattern = re.search(r"\^\(([a-z|-]+)\)==", text_of("Dockerfile"))
    assert pattern
    project = text_of("pyproject.toml")
    engines = re.search(r"^engines = \[\n(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    assert engines
    assert set(pattern[1].split("|")) == set(re.findall(r'"([a-z-]+)==', engines[1]))
    lock = text_of("requirements.lock")
    for name in pattern[1].split("|"):
        assert re.search(rf"^{name}==", lock, re.MULTILINE), name


def test_every_metric_of_dashboard_and_alerts_exists() -> None:
    series = {
        sample + ending
        for family in REGISTRY.collect()
        if family.name.startswith("scoreboard_")
        for sample in [family.name + ("_total" if family.type == "counter" else "")]
        for ending in (("_bucket", "_sum", "_count") if family.type == "histogram" else ("",))
    }
    dashboard = json.loads(text_of("deploy/grafana.json"))
    shown = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"scoreboard_\w+", target["expr"])
    }
    assert len(shown) >= 20
    assert shown <= series
    rules = re.findall(r"^ +expr: (.*)$", text_of("deploy/alerts.yml"), re.MULTILINE)
    assert len(rules) >= 10
    for rule in rules:
        assert set(re.findall(r"scoreboard_\w+", rule)) <= series, rule


def test_every_alarm_has_its_section_and_says_what_to_do() -> None:
    alarms = re.findall(r"^ +- alert: (\w+)$", text_of("deploy/alerts.yml"), re.MULTILINE)
    text = section(text_of("docs/operations.md"), "## Alarms")
    assert re.findall(r"^### (\w+)$", text, re.MULTILINE) == alarms
    for alarm in alarms:
        assert len(section(text, f"### {alarm}").split()) > 15, alarm
