"""Every knob, in one frozen model: built once, in `app` or `cli`, and passed on as a value."""

from __future__ import annotations

import difflib
import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, NoDecode, SettingsConfigDict

from identity_graphql.errors import ConfigurationError
from identity_graphql.origins import origins

NEVER_EMPTY = {
    "database_url": "a secret that is missing? Write the address of the database, or leave it out for a SQLite file",
    "auto_migrate": "write true or false, or leave it out for true",
}
"""An empty setting counts as left out. Not these, whose default may do what was not wanted: serve an empty
database as if it were yours, change the tables of one."""
NEAR = 0.85
"""Names as similar as this are taken for misspelt: one letter that is missing, wrong or too many, or two swapped."""
SOMEBODY_ELSES = frozenset({"aws_default_region", "database_user", "identity_graphql_port", "identity_port", "port0"})
"""Names as similar as that, but well known to be something else's. Kubernetes sets `…_PORT` for a service."""
GUESSED = {
    "database_url": {"database_dsn", "db_uri", "db_url", "mariadb_url", "mysql_url", "pg_url", "postgres_uri"}
    | {"postgres_url", "postgresql_url", "sqlalchemy_database_uri", "sqlalchemy_database_url", "sqlite_url"},
    "cors_origins": {"allow_origins", "allowed_origins", "cors_allow_origins", "cors_allowed_origins"}
    | {"cors_origin_whitelist"},
}
"""What others call a setting. Taken for it where it is not set itself, as they may be somebody else's then."""
PREFIX = re.compile("^identity_(graphql_)?")
"""Of a name that is guessed as well: the program's own."""


class RestContract(StrEnum):
    """The JSON that `POST /identify` answers with."""

    BITESPEED = "bitespeed"
    """`{"contact": {"primaryContatctId", …}}`, in the task's spelling"""
    CORRECTED = "corrected"
    """the same with `primaryContactId`"""
    FLAT = "flat"
    """`{"primaryContactId", …}` without the wrapper"""


class Settings(BaseSettings):
    """From the environment, then from `.env` in the working directory. Unknown names there are ignored, but see
    `misspelt`."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8-sig", extra="ignore", frozen=True, env_ignore_empty=True
    )

    database_url: SecretStr = Field(
        SecretStr("sqlite:///./identity.db"),
        description="Where the data is: `postgresql://user:password@host:5432/name`, `mysql://…`, "
        "`sqlite:///./identity.db`, `file:./dev.db`.",
    )
    host: str = Field("127.0.0.1", description="The address to listen on; `0.0.0.0` for all.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on; `0` takes a free one.")
    rest_contract: RestContract = Field(
        RestContract.BITESPEED,
        description="The JSON of `POST /identify`: `bitespeed`, `corrected` or `flat`.",
    )
    default_region: str | None = Field(
        None,
        description="Country (`IN`, `US`, …) whose national phone numbers are understood and become E.164. "
        "Unset: numbers stay as they are.",
    )
    identifier_kinds: str = Field(
        "",
        description="Kinds of identifiers beside `email` and `phone_number`, as a JSON object of names and options, "
        'such as `{"customer_id": {"limit": 1}}`; `docs/settings.md` has the options.',
    )
    suspicious_size: int = Field(
        50,
        ge=9,
        description="Contacts from which on a customer is suspicious: one with more is in `suspiciousClusters`.",
    )
    accept_normalisation_change: bool = Field(
        False,
        description="Start although the newest event was written under another normalisation "
        "(another `DEFAULT_REGION`, or the rules of an earlier release).",
    )
    auto_migrate: bool = Field(True, description="Migrate the database when the server starts.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins, comma-separated, whose pages may call the service, such as `https://shop.example`; "
        "`*` for all.",
    )
    isolation_level: Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] = Field(
        "READ COMMITTED",
        description="Isolation of the transactions: `READ COMMITTED`, `REPEATABLE READ` or `SERIALIZABLE`. "
        "The answers are right at each of them. SQLite is always serializable.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Server processes on one port. Unset: as many as there are cores; 1 on SQLite, which serves one.",
    )
    pool_size: int = Field(
        5,
        ge=1,
        le=1000,
        description="Database connections kept at most, per process. Writers share one; the others are for queries.",
    )
    request_timeout: float = Field(
        10.0, gt=0, description="Seconds after which a request is answered with 503 / BUSY at the latest."
    )
    max_connections: int = Field(
        10_000,
        ge=1,
        description="Connections of clients at once, per process; those beyond get 503.",
    )
    max_header_bytes: int = Field(
        32 * 1024,
        ge=1024,
        description="Bytes that the request line and the headers may have together; more get 431.",
    )
    max_headers: int = Field(100, ge=10, description="Headers that a request may have; more get 431.")
    header_timeout: float = Field(
        10.0, gt=0, description="Seconds from the first byte of a request to the end of its headers; then 408."
    )
    body_timeout: float = Field(
        20.0,
        gt=0,
        description="Seconds for the body of a request to come; then 408. As long for an answer to be taken.",
    )
    keep_alive_timeout: float = Field(
        75.0,
        gt=0,
        description="Seconds that a connection may be open without a request: more than in a proxy before it.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="The least that is logged.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="`console` for people, `json` for machines; `auto`: `console` on a terminal."
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        return origins(value) if isinstance(value, str) else value

    @field_validator("isolation_level", "log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper().replace("_", " ") if isinstance(value, str) else value

    @classmethod
    def load(cls) -> Settings:
        """The settings as they are set here. Raises ConfigurationError, which names each bad one but shows no value."""
        try:
            given = cls._given()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigurationError(f"The file .env cannot be read: {why}.") from None
        problems: dict[str, str] = {}
        try:
            settings = cls()
        except ValidationError as error:
            for problem in error.errors(include_input=False):
                problems[str(problem["loc"][0])] = problem["msg"].removeprefix("Value error, ")
        for name, why in NEVER_EMPTY.items():
            if name in given and not given[name]:
                problems[name] = f"is empty: {why}"
        if problems:
            lines = [f"{name.upper()}: {problems[name]}" for name in cls.model_fields if name in problems]
            raise ConfigurationError("\n  ".join(["These settings cannot be used:", *lines]))
        return settings

    @classmethod
    def misspelt(cls) -> dict[str, str]:
        """Names in the environment and in `.env` that are no settings but look like one, and which."""
        given = cls._given()
        missing = [name for name in cls.model_fields if name not in given]
        guesses = {guess: name for name in missing for guess in (name, *GUESSED.get(name, ()))}
        found = {}
        for name in sorted(given.keys() - cls.model_fields.keys() - SOMEBODY_ELSES):
            near = difflib.get_close_matches(name, cls.model_fields, 1, NEAR)
            if meant := near[0] if near else guesses.get(PREFIX.sub("", name)):
                found[name.upper()] = meant.upper()
        return found

    @classmethod
    def _given(cls) -> dict[str, str | None]:
        """Everything that is set, by its name in lower case; the environment goes before `.env`."""
        file = DotEnvSettingsSource(cls, env_ignore_empty=False)
        return {**file.env_vars, **EnvSettingsSource(cls, env_ignore_empty=False).env_vars}
