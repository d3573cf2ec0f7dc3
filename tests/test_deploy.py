"""What stands ready to be deployed fits the product: roles, engines, metrics, and what alarms say."""

from __future__ import annotations

import json
import re

from prometheus_client import REGISTRY

from documents import commands, section, text_of
from scoreboard import cli


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
