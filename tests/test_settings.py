"""Settings: what is read, what is refused, and which names are taken for misspelt ones."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from identity_graphql.errors import ConfigurationError
from identity_graphql.settings import NEVER_EMPTY, Settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without `.env`, in an environment without settings."""
    for name in os.environ:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_empty_setting_counts_as_left_out_unless_its_default_would_do_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in Settings.model_fields.keys() - NEVER_EMPTY.keys():
        monkeypatch.setenv(name.upper(), "")

    assert Settings.load() == Settings()


@pytest.mark.parametrize("name", NEVER_EMPTY)
@pytest.mark.parametrize("written", ["NAME=", 'NAME=""', "NAME"])
def test_an_empty_setting_that_matters_is_refused_wherever_it_stands(
    name: str, written: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".env").write_text(written.replace("NAME", name.upper()))
    with pytest.raises(ConfigurationError, match=f"{name.upper()}: is empty"):
        Settings.load()

    (folder / ".env").write_text(f"{name.upper()}=true")
    assert Settings.load()
    monkeypatch.setenv(name.upper(), "")
    with pytest.raises(ConfigurationError, match=f"{name.upper()}: is empty"):
        Settings.load()


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"PORT": "https", "DATABASE_URL": "", "CORS_ORIGINS": "shop.example"}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as told:
        Settings.load()

    lines = str(told.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["DATABASE_URL", "PORT", "CORS_ORIGINS"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DATABSE_URL", "DATABASE_URL"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("DATABASEURL", "DATABASE_URL"),
        ("database-url", "DATABASE_URL"),
        ("DATABSAE_URL", "DATABASE_URL"),
        ("CORS_ORIGIN", "CORS_ORIGINS"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("WROKERS", "WORKERS"),
        ("WORKER", "WORKERS"),
        ("POOL_SZIE", "POOL_SIZE"),
        ("AUTO_MIGRATES", "AUTO_MIGRATE"),
        ("PORTS", "PORT"),
        ("HOSTS", "HOST"),
    ],
)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_a_name_like_that_of_a_setting_is_taken_for_misspelt(
    name: str, meant: str, place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "environment":
        monkeypatch.setenv(name, "x")
    else:
        (folder / ".env").write_text(f"{name}=x\n")

    assert Settings.load() == Settings()
    assert Settings.misspelt() == {name.upper(): meant}


def test_one_wrong_letter_in_a_long_name_is_always_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (name.upper() for name in Settings.model_fields if len(name) > 6):
        for at in range(len(name)):
            typos = {
                "left out": name[:at] + name[at + 1 :],
                "wrong": name[:at] + "X" + name[at + 1 :],
                "doubled": name[:at] + name[at] + name[at:],
                "swapped": name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
            }
            for what, typo in typos.items():
                with monkeypatch.context() as patch:
                    patch.setenv(typo, "x")
                    assert Settings.misspelt() == ({} if typo == name else {typo: name}), what


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *((name, "DATABASE_URL") for name in ("DB_URL", "POSTGRES_URL", "MYSQL_URL", "SQLALCHEMY_DATABASE_URI")),
        *((name, "CORS_ORIGINS") for name in ("CORS_ALLOWED_ORIGINS", "ALLOWED_ORIGINS")),
        ("IDENTITY_DATABASE_URL", "DATABASE_URL"),
        ("IDENTITY_GRAPHQL_DATABASE_URL", "DATABASE_URL"),
        ("IDENTITY_DB_URL", "DATABASE_URL"),
        ("IDENTITY_WORKERS", "WORKERS"),
    ],
)
def test_what_others_call_a_setting_is_noticed_where_it_is_not_set_itself(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    assert Settings.misspelt() == {name: meant}

    monkeypatch.setenv(meant, "1")
    assert Settings.misspelt() == {}


COMMON = re.findall(
    r"\w+",
    """
    AWS_ACCESS_KEY_ID AWS_DEFAULT_REGION AWS_REGION BASH_ENV CI COLORTERM COMPOSE_PROJECT_NAME DATABASE_HOST
    DATABASE_NAME DATABASE_PASSWORD DATABASE_PORT DATABASE_USER DB_HOST DB_PORT DEBUG DISPLAY DOMAIN DYNO EDITOR ENV
    GATEWAY_PORT GIT_DIR GOOGLE_CLOUD_PROJECT GPG_KEY HISTSIZE HOME HOSTNAME HOSTTYPE HTTP_PORT HTTPS_PROXY
    IDENTITY_GRAPHQL_PORT IDENTITY_PORT IDENTITY_PORT_8000_TCP_PORT IDENTITY_SERVICE_HOST INVOCATION_ID JOURNAL_STREAM
    KUBERNETES_PORT KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT LANG LANGUAGE LC_ALL LOGNAME LS_COLORS MAIL NODE_ENV
    NODE_OPTIONS NOTIFY_SOCKET NO_PROXY OLDPWD PATH PGDATABASE PGHOST PGPORT PGUSER PORT0 POSTGRES_DB POSTGRES_HOST
    POSTGRES_PASSWORD POSTGRES_PORT POSTGRES_USER PS1 PWD PYTHONPATH PYTHONUNBUFFERED PYTHON_VERSION RAILS_ENV
    REDIS_HOST REDIS_PORT REDIS_URL SECRET_KEY SENTRY_DSN SHELL SHLVL SMTP_HOST SMTP_PORT SSH_AUTH_SOCK TERM TMPDIR TZ
    USER VIRTUAL_HOST VIRTUAL_PORT WEB_CONCURRENCY XDG_RUNTIME_DIR _
    """,
)


def test_what_environments_hold_otherwise_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("".join(f"{name}=x\n" for name in COMMON))
    assert Settings.misspelt() == {}

    for name in (*COMMON, *Settings.model_fields, *map(str.upper, Settings.model_fields)):
        monkeypatch.setenv(name, "")

    assert Settings.misspelt() == {}


def test_a_file_with_a_byte_order_mark_is_read_and_one_that_is_no_utf_8_refused(folder: Path) -> None:
    (folder / ".env").write_bytes(b"\xef\xbb\xbfPORT=8001\n")
    assert Settings.load().port == 8001
    assert Settings.misspelt() == {}

    (folder / ".env").write_bytes("PORT=8001\n".encode("utf-16"))
    with pytest.raises(ConfigurationError, match=r"The file \.env cannot be read: it is not UTF-8\."):
        Settings.load()


def test_origins_are_read_as_a_browser_sends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "HTTPS://shop.example:443/, http://localhost:3000")

    assert Settings.load().cors_origins == ("https://shop.example", "http://localhost:3000")
