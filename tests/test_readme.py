"""The README's commands run, its answers are what is answered, and its tables are what the program has."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from identity_graphql.settings import Settings
from tests.support.serving import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
HERE = "http://localhost:8000"


def environment(**changes: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    return {**clean, **changes}


@dataclass
class Example:
    """A command or an operation, and the answer that the README promises, if it does."""

    language: str
    text: str
    answer: str | None


def examples() -> list[Example]:
    found: list[Example] = []
    for language, text in BLOCKS:
        if language == "json":
            found[-1].answer = text.strip()
        elif language in ("bash", "graphql"):
            found.append(Example(language, text, None))
    return found


def commands() -> list[str]:
    """Every line of a bash block, without its comment, continued lines joined."""
    text = "".join(text for language, text in BLOCKS if language == "bash").replace("\\\n", " ")
    return [line.split("  #")[0].strip() for line in text.splitlines()]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`make run`, as the README says it, on a free port and with a database of its own."""
    url = f"sqlite:///{tmp_path_factory.mktemp('readme')}/identity.db"
    with subprocess.Popen(
        ["make", "run"],
        cwd=ROOT,
        env=environment(DATABASE_URL=url, PORT="0", MAKEFLAGS=""),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        try:
            assert program.stdout is not None
            lines = iter(program.stdout.readline, "")
            yield next(line for line in lines if "Health" in line).split()[-1].removesuffix("/health")
        finally:
            os.killpg(program.pid, signal.SIGTERM)


def test_the_examples_answer_what_the_readme_says(address: str) -> None:
    for example in examples():
        if example.language == "graphql":
            answered = httpx2.post(f"{address}/graphql", json={"query": example.text}).text
            assert "errors" not in json.loads(answered), answered
        elif "curl" in example.text:
            command = example.text.replace(HERE, address)
            retry = "--retry 20 --retry-connrefused --retry-delay 1"
            answered = subprocess.run(
                ["bash", "-c", command.replace("curl -s", f"curl -s {retry}")],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        else:
            continue
        assert example.answer in (None, answered), example.text


@pytest.mark.parametrize("command", sorted({command for command in commands() if not command.startswith("curl")}))
def test_every_other_command_is_one_that_there_is(command: str) -> None:
    word, *rest = command.split()
    if word == "make":
        # `make run` ran above; the others are what CI calls.
        done = subprocess.run(["make", "-n", *rest], cwd=ROOT, env=environment(MAKEFLAGS=""), capture_output=True)
    elif word == "identity-graphql":
        options = rest if "--help" in rest else [*rest, "--help"]
        done = subprocess.run(
            [sys.executable, "-m", "identity_graphql", *options], cwd=ROOT, env=environment(), capture_output=True
        )
    else:
        assert command == "pip install .", "what the packaging tests do"
        return
    assert done.returncode == 0, done.stderr


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists() or target.startswith("http"), target
    headings = {
        re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)", README, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings


def settings_table() -> str:
    rows = ["| name | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = default.get_secret_value() if isinstance(default, SecretStr) else default
        text = "" if shown in (None, ()) else str(shown).lower() if isinstance(shown, bool) else str(shown)
        rows.append(f"| `{name.upper()}` | {f'`{text}`' if text else ''} | {field.description} |")
    return "\n".join(rows) + "\n"


def test_the_table_of_settings_is_complete() -> None:
    written = README.partition("<!-- settings -->\n")[2].partition("<!-- /settings -->")[0]

    assert written == settings_table(), f"put this between the marks:\n{settings_table()}"


def test_the_decisions_are_all_listed() -> None:
    folder = Path(ROOT / "docs" / "decisions")
    listed = (folder / "README.md").read_text()
    for page in folder.glob("0*.md"):
        assert f"({page.name})" in listed
