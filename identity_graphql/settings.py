"""Every knob, in one frozen model: built once, in `app` or `cli`, and passed on as a value."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from identity_graphql.errors import ConfigurationError


class RestContract(StrEnum):
    """The JSON that `POST /identify` answers with."""

    BITESPEED = "bitespeed"
    """`{"contact": {"primaryContatctId", …}}`, in the task's spelling"""
    CORRECTED = "corrected"
    """the same with `primaryContactId`"""
    FLAT = "flat"
    """`{"primaryContactId", …}` without the wrapper"""


class Settings(BaseSettings):
    """From the environment, then from `.env` in the working directory. Unknown names there are ignored."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True, env_ignore_empty=True
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
    accept_normalisation_change: bool = Field(
        False,
        description="Start although the newest event was written under another normalisation "
        "(another `DEFAULT_REGION`).",
    )
    auto_migrate: bool = Field(True, description="Migrate the database when the server starts.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins, comma-separated, whose pages may call the service; `*` for all."
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
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("isolation_level", "log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper().replace("_", " ") if isinstance(value, str) else value

    @classmethod
    def load(cls) -> Settings:
        """The settings as they are set here. Raises ConfigurationError, which names each bad one but shows no value."""
        try:
            return cls()
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors(include_input=False)]
            raise ConfigurationError("These settings cannot be used:\n  " + "\n  ".join(lines)) from None
