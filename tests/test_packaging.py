"""What is shipped: the wheel, the container image, the lock files, and the words of make.

The image is built without Docker: the Dockerfile's own lines are carried out in a temporary folder. What they copy
is all there is, and what they install goes into an empty environment, so that nothing missing stays unnoticed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import Parser
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml  # type: ignore[import-untyped]

from identity_graphql import __version__
from tests.support.servers import free_port

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.txt", "requirements-build.txt", "requirements-dev.txt", "tests/client/requirements.txt")


@dataclass
class Image:
    """What the Dockerfile makes, with every path of the image in a folder."""

    folder: Path
    base: str = ""
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "root"
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)

    def here(self, text: str) -> str:
        """With the image's paths replaced by those of the folder; programs of the system stay what they are."""
        return re.sub(r"(?<![\w.}-])/(?=(src|venv|build|wheels|data)\b)", f"{self.folder}/", text)

    def environment(self, **settings: str) -> dict[str, str]:
        # how pip reaches its packages here is no part of the image
        network = {name: value for name, value in os.environ.items() if re.match("(?i)PIP_|.*_proxy$|SSL_|HOME$", name)}
        return {**network, **self.env, **settings}

    def run(self, command: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
        """In the finished image."""
        env = self.environment(**settings)
        program = shutil.which(command[0], path=env["PATH"])
        assert program is not None
        return subprocess.run(
            [program, *command[1:]],
            cwd=self.here(self.workdir),
            env=env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @contextmanager
    def started(self) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
        """The image's command, running, and what it was told."""
        settings = {"PORT": str(free_port())}
        env = self.environment(**settings)
        program = shutil.which(self.command[0], path=env["PATH"])
        assert program is not None
        with (
            (self.folder / "log").open("wb") as log,
            subprocess.Popen(
                [program, *self.command[1:]],
                cwd=self.here(self.workdir),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            ) as process,
        ):
            try:
                yield process, settings
            finally:
                process.kill()


def build(folder: Path) -> Image:
    """Carry out the Dockerfile."""
    image = Image(folder)
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        match word:
            case "" | "#" | "EXPOSE" | "STOPSIGNAL":
                pass
            case "FROM":
                # The first stage has the Python of these tests, the last one only what it copies.
                first = not image.base
                path = f"{Path(sys.executable).parent}:/usr/bin:/bin" if first else "/usr/bin:/bin"
                image.base, image.env, image.workdir = rest.split()[0], {"PATH": path}, "/"
            case "ENV":
                for setting in shlex.split(rest):
                    name, _, value = setting.partition("=")
                    image.env[name] = image.here(value).replace("$PATH", image.env["PATH"])
            case "WORKDIR":
                image.workdir = rest
                Path(image.here(rest)).mkdir(exist_ok=True)
            case "COPY":
                _copy(image, rest.split())
            case "RUN":
                image.ran.append(rest)
                if "useradd" not in rest:
                    command = ["sh", "-ec", image.here(rest)]
                    result = subprocess.run(
                        command,
                        cwd=image.here(image.workdir),
                        env=image.environment(),
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    assert result.returncode == 0, result.stdout + result.stderr
            case "VOLUME":
                image.volumes.append(rest)
            case "USER":
                image.user = rest
            case "CMD":
                image.command = json.loads(rest)
            case "HEALTHCHECK":
                image.healthcheck = json.loads(rest.partition(" CMD ")[2])
            case _:
                pytest.fail(f"the Dockerfile says something that this test does not know: {line}")
    return image


def _copy(image: Image, words: list[str]) -> None:
    *sources, target = words
    if sources[0].startswith("--from="):
        assert sources[1:] == [target], "what is copied from a stage keeps its place, else a venv would break"
        assert Path(image.here(target)).exists()
        return
    for source in sources:
        image.copied.append(source)
        here = Path(image.here(image.workdir), target)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, here, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, here)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build(tmp_path_factory.mktemp("image"))


# --- the wheel ---


def test_the_wheel_holds_the_package_and_the_migrations_and_nothing_else(image: Image) -> None:
    (wheel,) = (image.folder / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = Parser().parsestr(archive.read(f"identity_graphql-{__version__}.dist-info/METADATA").decode())
        assert f"identity_graphql-{__version__}.dist-info/licenses/LICENSE" in archive.namelist()
    package = {f"identity_graphql/{name}" for name in _files(ROOT / "identity_graphql")}
    shipped = {f"identity_graphql/migrations/{name}" for name in _files(ROOT / "alembic")}
    assert "identity_graphql/migrations/env.py" in shipped
    assert names == package | shipped
    assert metadata["License-Expression"] == "MIT"


def _files(folder: Path) -> set[str]:
    files = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return {str(file) for file in files if "__pycache__" not in file.parts}


def test_the_image_has_what_is_locked_and_nothing_else(image: Image) -> None:
    python = image.here("/venv/bin/python")
    listed = json.loads(image.run([python, "-m", "pip", "list", "--format=json"]).stdout)
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    installed = {p["name"].lower().replace("_", "-"): p["version"] for p in listed if p["name"] != "pip"}
    installed.pop("setuptools", None)  # Python 3.11's venv brings it
    assert installed.pop("identity-graphql") == __version__
    assert installed.items() <= {name.lower().replace("_", "-"): version for name, version in locked.items()}.items()
    check = image.run([python, "-m", "pip", "check"])
    assert check.returncode == 0, check.stdout


def test_the_installed_program_knows_its_schema_without_a_checkout(image: Image) -> None:
    assert image.run(["identity-graphql", "schema"]).stdout == (ROOT / "schema.graphql").read_text()
    assert image.run(["python", "-m", "identity_graphql", "--version"]).stdout == f"identity-graphql {__version__}\n"


# --- the image ---


def test_the_image_serves_with_no_settings_gets_healthy_and_stops_in_time(image: Image) -> None:
    with image.started() as (process, settings):
        give_up = time.monotonic() + 20
        while (check := image.run(image.healthcheck, **settings)).returncode != 0:
            assert process.poll() is None, (image.folder / "log").read_text()
            assert time.monotonic() < give_up, check.stderr
            time.sleep(0.1)

        at = f"http://127.0.0.1:{settings['PORT']}"
        answer = httpx2.post(f"{at}/identify", json={"email": "ann@example.com", "phoneNumber": "123456"}, timeout=20)
        assert answer.json()["contact"] == {
            "primaryContatctId": 1,
            "emails": ["ann@example.com"],
            "phoneNumbers": ["123456"],
            "secondaryContactIds": [],
        }
        assert (image.folder / "data/identity.db").exists()

        process.terminate()
        assert process.wait(timeout=5) == 0
    assert image.run(image.healthcheck, **settings).returncode != 0
    for line in (image.folder / "log").read_text().splitlines():
        json.loads(line)


def test_the_image_runs_as_an_ordinary_user_whose_data_is_in_a_volume(image: Image) -> None:
    assert image.base == "python:3.13-slim"
    (made,) = [line for line in image.ran if "useradd" in line]
    assert made.endswith(f"install --directory --owner={image.user} {image.workdir}")
    assert image.user != "root"
    assert image.volumes == [image.workdir]
    assert image.env["DATABASE_URL"] == f"sqlite:///{image.folder}/data/identity.db"
    assert image.env["HOST"] == "0.0.0.0"


def test_everything_that_the_image_downloads_is_locked_by_its_hash(image: Image) -> None:
    installs = [line for line in image.ran if "pip install" in line or "pip wheel" in line]
    assert len(installs) == 4
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)


def test_docker_is_sent_what_the_image_copies_and_nothing_else(image: Image) -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(image.copied)
    assert "**/__pycache__" in rules


def test_compose_starts_the_program_when_its_database_is_healthy() -> None:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    app, database = compose["services"]["app"], compose["services"]["database"]
    assert app["build"] == "."
    assert app["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert app["ports"] == ["${PORT:-8000}:8000"]
    assert (app["environment"]["HOST"], app["environment"]["PORT"]) == ("0.0.0.0", 8000)
    made = database["environment"]
    assert app["environment"]["DATABASE_URL"] == (
        f"postgresql://{made['POSTGRES_USER']}:{made['POSTGRES_PASSWORD']}@database:5432/{made['POSTGRES_DB']}"
    )
    assert "pg_isready" in database["healthcheck"]["test"]
    (volume,) = database["volumes"]
    assert volume.partition(":")[0] in compose["volumes"]


# --- the lock files ---


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_its_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    packages = re.findall(r"^[\w.\[\]-]+==.*(?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+$", text, re.MULTILINE)
    assert len(packages) == len(re.findall(r"^\w", text, re.MULTILINE)) > 0
    assert "://" not in text
    assert not re.search(r"^--", text, re.MULTILINE)


def test_what_the_program_needs_is_locked_and_the_tests_use_the_same_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {re.split(r"[^\w-]", requirement)[0].lower() for requirement in project["project"]["dependencies"]}
    run, made, dev, _ = (
        dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text().lower(), re.MULTILINE)) for lock in LOCKS
    )
    assert needed <= set(run)
    assert "hatchling" in made
    assert run.items() <= dev.items()
    assert made.items() <= dev.items()


# --- make ---


def make(folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    return subprocess.run(
        ["make", *words], cwd=folder, env={**kept, **settings}, capture_output=True, text=True, check=False
    )


def words_of_make() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_alone_explains_every_word() -> None:
    explained = dict(re.findall(r"^  make (\w+) +(.+)$", make(ROOT).stdout, re.MULTILINE))
    assert set(explained) == words_of_make()
    assert {"run", "setup", "check", "test", "schema", "migration", "lock"} <= set(explained)


def test_commits_and_ci_use_the_words_of_make() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    entries = [hook["entry"].split() for hook in hooks[0]["hooks"]]
    assert {program for program, _ in entries} == {"make"}
    assert {word for _, word in entries} <= words_of_make()
    ci = ROOT / ".ci/run"
    assert os.access(ci, os.X_OK)
    assert set(re.findall(r"^\s*(?:\w+=\S+ )*make (\w+)", ci.read_text(), re.MULTILINE)) == {"check", "test"}
    assert subprocess.run(["bash", "-n", ci], check=False).returncode == 0


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone that nobody has set up."""
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def stand_in(folder: Path, name: str, *, version: str, venv: bool) -> None:
    """A Python that only tells what make asks of it."""
    program = folder / name
    old = int(version.partition(".")[2]) < 11
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f"  *ensurepip*) exit {int(not venv)} ;;\n"
        f"  *'< (3, 11)'*) exit {int(old)} ;;\n"
        f"  *version_info*) echo {version} ;;\n"
        "  *) echo chosen $0 >&2; exit 9 ;;\n"
        "esac\n"
    )
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("pythons", "says"),
    [
        ([("python3", "3.9", True)], "Python 3.11 or newer is needed, but python3 is Python 3.9"),
        ([("python3", "3.12", False)], "python3 lacks the module venv or ensurepip"),
        (
            [],
            "Python 3.11 or newer is needed, but there is none by the name of python3.13 python3.12 python3.11 python3",
        ),
        ([("python3", "3.9", True), ("python3.12", "3.12", True)], "chosen {folder}/python3.12"),
        ([("python3.13", "3.13", False), ("python3", "3.12", True)], "chosen {folder}/python3"),
        ([("python3", "3.14", True)], "chosen {folder}/python3"),
    ],
    ids=["too old", "no venv", "none", "the newer one", "the one with venv", "a later one"],
)
def test_make_chooses_a_python_or_says_what_to_install(
    pythons: list[tuple[str, str, bool]], says: str, clone: Path
) -> None:
    programs = clone / "programs"
    programs.mkdir()
    for name, version, venv in pythons:
        stand_in(programs, name, version=version, venv=venv)
    for tool in ("sh", "make"):
        found = shutil.which(tool)
        assert found is not None
        (programs / tool).symlink_to(found)
    result = make(clone, "run", PATH=str(programs))
    assert result.returncode == 2
    assert result.stderr.startswith(says.format(folder=programs)), result.stderr


def test_python_names_the_one_to_use(clone: Path) -> None:
    stand_in(clone, "mine", version="3.10", venv=True)
    result = make(clone, "run", f"PYTHON={clone}/mine")
    assert f"{clone}/mine is Python 3.10" in result.stderr
