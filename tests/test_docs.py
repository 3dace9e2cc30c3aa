"""The documentation is true: its examples run, its links lead somewhere, its names are those of the program."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from identity_graphql.api.graphql.identify import WarningCode
from identity_graphql.domain.events import EventKind, Outcome
from identity_graphql.errors import IdentityError
from identity_graphql.settings import Settings
from identity_graphql.storage.tables import metadata
from tests.support import program
from tests.support.databases import Databases
from tests.support.servers import bundled_postgresql
from tests.support.serving import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"
ARCHITECTURE = DOCS / "architecture.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
EVERY_PAGE = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((DOCS / "decisions").glob("*.md"))]

LONGEST_README = 160  # lines
HERE = "http://localhost:8000"
POSTGRESQL = re.compile(r"postgresql://identity:secret@localhost/(\w+)")
ANYTHING = "…"
"""In an answer, what is another one each time: a moment, a hash."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# -- examples


@dataclass
class Example:
    """A command or an operation, and what the page says that it answers, if it does."""

    language: str
    text: str
    answer: str | None = None
    answer_language: str = ""

    @property
    def commands(self) -> list[str]:
        """Its lines without comments, continued ones joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]

    @property
    def is_run(self) -> bool:
        """Whether it is run with the page; what starts a server or installs something is looked at by itself."""
        run = [is_run(command) for command in self.commands] if self.language == "bash" else [True]
        assert all(run) or not any(run), f"one block for what is run, another for the others:\n{self.text}"
        return all(run)


@dataclass
class Chapter:
    """The examples that one server answers in their order, and what is set for it."""

    server: str = ""
    examples: list[Example] = field(default_factory=list)


def chapters_of(page: Path) -> list[Chapter]:
    """A server for the whole page, but a new one after each ``<!-- server: SETTING=value -->``."""
    chapters = [Chapter()]
    for server, language, text in re.findall(
        r"^<!-- server:(.*?)-->$|^```(\w+)\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL
    ):
        examples = chapters[-1].examples
        if not language:
            chapters.append(Chapter(server.strip()))
        elif language in ("json", "text"):
            assert any(example.is_run for example in examples[-1:]), f"{name_of(page)}: nothing answers this:\n{text}"
            assert examples[-1].answer is None, f"{name_of(page)}: a second answer:\n{text}"
            examples[-1].answer, examples[-1].answer_language = text, language
        elif language != "mermaid":
            assert language in ("bash", "graphql", "sql"), f"{name_of(page)}: nobody runs {language}"
            examples.append(Example(language, text))
    return chapters


def is_run(command: str) -> bool:
    bare = re.sub(r"^(?:[A-Z_]+=\S+ )*", "", command)
    return bare.split()[0] not in ("make", "docker", "pip") and not bare.startswith("identity-graphql serve")


@contextmanager
def serving(page: Path, chapter: Chapter, folder: Path, server: str | None) -> Iterator[str]:
    """A server as the page starts it, on a free port and with a new database; its address."""
    settings = dict(word.split("=", 1) for word in chapter.server.split() if "=" in word)
    if server is not None:
        settings["DATABASE_URL"] = server
    if page == README:  # `make run`, as it says
        settings |= {"DATABASE_URL": f"sqlite:///{folder}/identity.db", "PORT": "0", "MAKEFLAGS": ""}
    command = ("make", "-C", str(ROOT), "run") if page == README else program.SERVE
    with program.served(folder, command=command, **settings) as (_, lines):
        address = program.address(lines)
        httpx2.get(f"{address}/live", timeout=60).raise_for_status()
        yield address


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(chapter.examples for chapter in chapters_of(page))], ids=name_of
)
def test_the_examples_of_a_page_answer_what_it_says(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for number, chapter in enumerate(chapters_of(page)):
        examples = [example for example in chapter.examples if example.is_run]
        if not examples:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        urls = {}
        if chapter.server == "postgresql":
            databases: Databases = request.getfixturevalue("databases")
            postgresql = databases.server("postgresql")
            names = set(POSTGRESQL.findall("".join(example.text for example in examples)))
            urls = {name: postgresql.url(name) for name in names}
            postgresql.query("CREATE DATABASE identity")
        try:
            with serving(page, chapter, folder, urls.get("identity")) as address:
                for example in examples:
                    answered = run(example, address, folder, urls)
                    assert matches(example, answered), f"{name_of(page)}:\n{example.text}\nanswered\n{answered}"
        finally:
            for name in urls:
                postgresql.query(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def run(example: Example, address: str, folder: Path, urls: dict[str, str]) -> str:
    """What an example answers at this server, in this folder; its PostgreSQL databases are at these URLs."""
    if example.language == "graphql":
        answered = httpx2.post(f"{address}/graphql", json={"query": example.text}, timeout=60).text
        assert example.answer is not None or "errors" not in json.loads(answered), answered
        return answered
    programs = [str(program.PROGRAM.parent), os.environ["PATH"]]
    if urls:  # its own clients: those of another version may not understand it
        programs.insert(1, os.environ.get("POSTGRESQL_BIN") or str(bundled_postgresql()))
    command, text = ["bash", "-euo", "pipefail"], example.text.replace(HERE, address)
    if example.language == "sql":
        command = ["psql", "-q", "-v", "ON_ERROR_STOP=1", urls["identity"]]
    ran = subprocess.run(
        command,
        cwd=folder,
        env=program.environment(PATH=os.pathsep.join(programs)),
        input=POSTGRESQL.sub(lambda found: urls[found[1]], text),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, f"{example.text}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def matches(example: Example, answered: str) -> bool:
    """Whether it is the answer that the page has. JSON over several lines may be laid out as it likes."""
    if example.answer is None:
        return True
    expected, anything = example.answer.strip(), r"[^\n]*"
    answered = answered.replace("\r", "").strip()
    if example.answer_language == "json":
        anything = r'(?:[^"\\]|\\.)*'
        if "\n" in expected:
            expected, answered = compact(expected), compact(answered)
    return re.fullmatch(anything.join(map(re.escape, expected.split(ANYTHING))), answered) is not None


def compact(text: str) -> str:
    return json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)


def commands_that_are_not_run() -> set[str]:
    """Those of all pages that start a server or install something."""
    pages = (*PAGES, ROOT / "CONTRIBUTING.md")
    examples = (example for page in pages for chapter in chapters_of(page) for example in chapter.examples)
    return {command for example in examples if not example.is_run for command in example.commands}


@pytest.mark.parametrize("command", sorted(commands_that_are_not_run()))
def test_every_other_command_is_one_that_there_is(command: str) -> None:
    if command.startswith("docker"):
        recipes = (ROOT / "compose.yaml").read_text() + (ROOT / "Dockerfile").read_text()
        assert f"# {command}" in recipes, "what the packaging tests go by"
    elif command.startswith("pip"):
        assert command == "pip install .", "what the packaging tests do"
    elif "make" in command.split():
        # CI calls them.
        make = ["bash", "-c", command.replace("make", "make -n", 1)]
        done = subprocess.run(make, cwd=ROOT, env=program.environment(MAKEFLAGS=""), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    else:
        *assigned, _ = re.findall(r"([A-Z_]+)=\S+ |$", command)
        assert {name.lower() for name in assigned} <= Settings.model_fields.keys()
        arguments = command.partition("identity-graphql ")[2].split()
        help_of = [str(program.PROGRAM), *arguments, "--help"]
        done = subprocess.run(help_of, cwd=ROOT, env=program.environment(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


# -- links, names, rules


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """What a link may lead to within a page: headings, as GitHub names them, and anchors."""
    text = prose(page)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    headings = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
    assert len(headings) == len(set(headings)), f"{name_of(page)} has a heading twice"
    return {*headings, *re.findall(r'<a id="([\w-]+)"></a>', text)}


@pytest.mark.parametrize("page", EVERY_PAGE, ids=name_of)
def test_the_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors_of(there), target


def names_of_files() -> set[str]:
    folders = ("identity_graphql", "alembic", "tests", "benchmarks", "docs")
    return {path.name for folder in folders for path in (ROOT / folder).rglob("*.*")} | set(os.listdir(ROOT))


@pytest.mark.parametrize("page", EVERY_PAGE, ids=name_of)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = re.sub(r"https?://\S+", "", prose(page)) + "".join(text for _, text in drawings(page))
    known = names_of_files()
    for path in re.findall(r"(?<![\w./-])[\w./-]*\w\.(?:py|md|sql|toml|yaml|graphql|mjs)\b(?!/)", text):
        folders = (ROOT, ROOT / "identity_graphql", page.parent)
        assert any((folder / path).is_file() for folder in folders) or path in known, path


def test_where_is_what_names_what_stands_in_the_files() -> None:
    part = ARCHITECTURE.read_text().partition("## Where is what?")[2].partition("\n### Tests")[0]
    rows = [row.split("|")[2:4] for row in re.findall(r"^\| (?!question).*\|$", part, re.MULTILINE)]
    assert len(rows) > 20
    for files, names in rows:
        paths = re.findall(r"`([\w/]+\.py)`", files)
        found = [
            folder / path for path in paths for folder in (ROOT, ROOT / "identity_graphql") if (folder / path).is_file()
        ]
        assert len(found) == len(paths), files
        code = "".join(path.read_text() for path in found)
        looked_for = re.findall(r"`(\w+)`", names)
        assert looked_for, f"nothing to look for in{files}"
        for name in looked_for:
            assert re.search(rf"^ *(?:async )?(?:def|class) {name}\b|^ *{name}(?::| =)", code, re.MULTILINE), (
                f"{name} is not made in{files}"
            )


def test_every_module_has_its_place_in_the_architecture() -> None:
    package, text = ROOT / "identity_graphql", ARCHITECTURE.read_text()
    modules = {path for path in package.rglob("*.py") if not path.name.startswith("__")}
    unnamed = {
        str(path.relative_to(package))
        for path in modules
        if not re.search(rf"\b{re.escape(path.name)}\b", text) and path.parent.name != "graphql"
    }
    assert unnamed == set()


def test_the_drawing_of_the_tables_has_every_table_and_column() -> None:
    (drawing,) = [text for kind, text in drawings(ARCHITECTURE) if kind == "erDiagram"]
    drawn = {
        table: [tuple(line.split()[1:3]) for line in columns.strip().splitlines()]
        for table, columns in re.findall(r"^ *(\w+) \{\n(.*?)^ *\}", drawing, re.MULTILINE | re.DOTALL)
    }

    assert {table: [name for name, *_ in columns] for table, columns in drawn.items()} == {
        table.name: [column.name for column in table.columns] for table in metadata.sorted_tables
    }
    assert {table: {name for name, *key in columns if key == ["PK"]} for table, columns in drawn.items()} == {
        table.name: {column.name for column in table.primary_key} for table in metadata.sorted_tables
    }


def drawings(*pages: Path) -> list[tuple[str, str]]:
    """The Mermaid drawings of these pages: their kinds, and all of their text."""
    text = "".join(page.read_text() for page in pages)
    blocks = re.findall(r"^```mermaid\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(block.split()[0], block) for block in blocks]


BLOCKS = {
    "flowchart": {"subgraph"},
    "sequenceDiagram": {"loop", "alt", "opt", "par", "critical", "rect"},
    "erDiagram": set[str](),
}


@pytest.mark.parametrize(
    ("kind", "text"),
    [pytest.param(*drawing, id=f"{n}-{drawing[0]}") for n, drawing in enumerate(drawings(*EVERY_PAGE))],
)
def test_the_drawings_are_whole(kind: str, text: str) -> None:
    assert kind in BLOCKS
    lines = [line.strip() for line in text.splitlines()]
    depth = 0
    for line in lines:
        depth += line.split(" ")[0] in BLOCKS[kind]
        depth -= line == "end"
        assert depth >= 0, line
        assert line.count('"') % 2 == 0, line
        outside = re.sub(r'"[^"]*"|\S*--\S*', "", line)
        if kind == "flowchart":
            assert [outside.count(bracket) for bracket in "[({"] == [outside.count(bracket) for bracket in "])}"], line
    assert depth == 0, "a block without its end"
    if kind == "erDiagram":
        assert sum(line.endswith(" {") for line in lines) == lines.count("}")
    if kind == "sequenceDiagram":
        known = {line.split()[1] for line in lines if line.startswith("participant ")}
        for line in lines:
            assert ";" not in line, "it would end the line"
            if message := re.match(r"(\w+) *--?>>? *(\w+):", line):
                assert {message[1], message[2]} <= known, line


CITED = re.compile(r"(?<![\w%+#\\])[EQI][1-9][0-9]?(?!\w)")
"""A rule's number: not a part of a word, of a percent-encoded byte, of a code of a linter."""


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("nothing is decided again (E1), Q13: a ban", ["E1", "Q13"]),
        ("I1 to I7, E1-E5", ["I1", "I7", "E1", "E5"]),
        ("%E2%82%AC in a password, 1E5, E164, E501, I001, Q100, U+E9, xE9, E0, E2E, MyI9", []),
    ],
)
def test_a_citation_is_a_rule_and_nothing_else(text: str, cited: list[str]) -> None:
    assert CITED.findall(text) == cited


def test_every_rule_that_is_cited_is_in_the_semantics() -> None:
    semantics = (DOCS / "semantics.md").read_text()
    rules = re.findall(r'^- <a id="(\w+)"></a>\*\*([EQI]\d+)\*\*', semantics, re.MULTILINE)
    assert all(anchor == number.lower() for anchor, number in rules)
    numbers = [number for _, number in rules]
    assert len(numbers) == len(set(numbers)), "a number means one thing"
    folders = ("identity_graphql", "tests", "docs", "alembic", "benchmarks")
    files = [
        path
        for folder in folders
        for kind in ("py", "md", "sql")
        for path in (ROOT / folder).rglob(f"*.{kind}")
        if ".venv" not in path.parts
    ]
    cited = {
        number: name_of(path)
        for path in (*files, README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")
        for number in CITED.findall(path.read_text())
    }

    assert {"E1", "Q21", "I9"} <= cited.keys()
    assert {number: path for number, path in cited.items() if number not in numbers} == {}


def test_the_glossary_is_in_order_and_has_every_word_of_the_api_and_the_database() -> None:
    text = (DOCS / "glossary.md").read_text()
    entries = re.findall(r"^- \*\*(.+?)\*\*: .+[.]$", text, re.MULTILINE)
    order = [entry.replace("`", "").replace("_", " ").lower() for entry in entries]
    assert len(entries) == text.count("\n- "), "an entry is one line, and ends with a full stop"
    assert order == sorted(order)
    assert len(order) == len(set(order))

    codes = {error.code for error in subclasses(IdentityError)}
    for path in (ROOT / "identity_graphql" / "api").rglob("*.py"):
        codes |= set(re.findall(r'"?code"?(?:: | = )"([A-Z_]+)"', path.read_text()))
    columns = {column.name for table in metadata.sorted_tables for column in table.columns}
    members = {member.name for kind in (Outcome, EventKind, WarningCode) for member in kind}
    names = {*codes, *columns, *members, *metadata.tables}
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()


def subclasses(kind: type[IdentityError]) -> Iterator[type[IdentityError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


# -- tables and lengths


def settings_table() -> str:
    rows = ["| name | default | |", "|---|---|---|"]
    for name, described in Settings.model_fields.items():
        default = described.default
        shown = default.get_secret_value() if isinstance(default, SecretStr) else default
        text = "" if shown in (None, ()) else str(shown).lower() if isinstance(shown, bool) else str(shown)
        rows.append(f"| `{name.upper()}` | {f'`{text}`' if text else ''} | {described.description} |")
    return "\n".join(rows) + "\n"


def test_the_table_of_settings_is_complete() -> None:
    page = (DOCS / "settings.md").read_text()
    written = page.partition("<!-- settings -->\n")[2].partition("<!-- /settings -->")[0]

    assert written == settings_table(), f"put this between the marks of docs/settings.md:\n{settings_table()}"


def test_the_readme_is_what_a_newcomer_reads_at_once() -> None:
    assert len(README.read_text().splitlines()) <= LONGEST_README, "move what not everybody needs into docs/"


def test_every_page_is_found_from_the_readme_and_every_decision_from_their_list() -> None:
    for page in DOCS.glob("*.md"):
        assert f"(docs/{page.name})" in README.read_text()
    listed = (DOCS / "decisions" / "README.md").read_text()
    for page in (DOCS / "decisions").glob("0*.md"):
        assert f"({page.name})" in listed
