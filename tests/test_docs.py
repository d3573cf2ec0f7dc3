"""The documents say what is so: every setting, code, command, metric and module, and every link."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from prometheus_client import REGISTRY

import scoreboard
from documents import DOCUMENTS, ROOT, TEXTS, blocks, commands, first_cells, section, text_of
from scoreboard import cli, config, issuers
from scoreboard.config.places import URLS
from scoreboard.errors import PROBLEMS
from scoreboard.event_ids import event_id_of_action
from scoreboard.live import inbound, watcher

VALUES = {f"SCOREBOARD_{name.upper()}": example for name, (_, example) in URLS.items()}


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
