"""Origins of web pages, as browsers send them: what is listed is compared with these letter by letter."""

from __future__ import annotations

import difflib
import ipaddress
import re

import idna

SHAPE = "an origin is a scheme, a host and perhaps a port, such as https://shop.example or http://localhost:3000"
DEFAULT_PORTS = {"http": 80, "https": 443}
NO_PAGE_HAS = frozenset({"about", "blob", "data", "file", "ftp", "javascript", "ws", "wss"})
"""Schemes that no origin has: such pages send `null`, or the origin of the page that opened them."""

_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<place>[^/?#\\]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")


def origins(text: str) -> tuple[str, ...]:
    """Returns the origins of a comma-separated list, or `*`, as a browser writes them.

    Raises ValueError for what no page's origin can be: it says which one, what is wrong and what is right.
    """
    if re.search(r"[\"'`]", text) or text.lstrip().startswith("["):
        raise ValueError("write the origins without brackets and quotes: https://shop.example,https://crm.example")
    found = []
    for position, part in enumerate(text.split(","), 1):
        if part.strip():
            try:
                found.append(_origin(part.strip()))
            except ValueError as error:
                raise ValueError(f"origin {position} {error}") from None
    if text.strip() and not found:
        raise ValueError(f"origin 1 is missing: {SHAPE}")
    return tuple(dict.fromkeys(found))


def _origin(text: str) -> str:
    if text == "*":
        return text
    if text.lower() == "null":
        raise ValueError("is `null`, which any page can send: list the origins, or * for all")
    if "*" in text:
        raise ValueError("has a * in it, which stands for nothing there: list each origin, or * for all")
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError(f"lacks http:// or https:// in front: {SHAPE}")
    scheme, place = match["scheme"].lower(), match["place"]
    if scheme in NO_PAGE_HAS or (
        scheme not in DEFAULT_PORTS and difflib.get_close_matches(scheme, DEFAULT_PORTS, cutoff=0.7)
    ):
        raise ValueError(f"has a scheme that no page has: {SHAPE}")
    if match["rest"] not in ("", "/"):
        raise ValueError(f"goes on behind the host: {SHAPE}, without a path")
    if "@" in place:
        raise ValueError(f"has a user name in it: {SHAPE}")
    host, port = _host_and_port(place)
    return f"{scheme}://{host}" + ("" if port in (None, DEFAULT_PORTS.get(scheme)) else f":{port}")


def _host_and_port(place: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", place)
    if match is None or (match[2] and not 0 < int(match[2]) < 65536):
        raise ValueError(f"has a port that is none: {SHAPE}")
    try:
        host = _host(match[1])
    except ValueError:
        raise ValueError(f"has a host that is none: {SHAPE}; several are separated by commas") from None
    return host, int(match[2]) if match[2] else None


def _host(text: str) -> str:
    if text.startswith("["):
        return f"[{ipaddress.IPv6Address(text[1:-1])}]"
    host = text.lower() if text.isascii() else idna.encode(text, uts46=True).decode()
    if not _HOST.fullmatch(host):
        raise ValueError
    if host.rstrip(".").rpartition(".")[2].isdigit():
        return str(ipaddress.IPv4Address(host))
    return host
