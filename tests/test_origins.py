"""Origins: what a browser can send is accepted as it would send it, everything else is refused."""

from __future__ import annotations

import pytest

from identity_graphql.origins import origins


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("", ()),
        ("  ", ()),
        ("*", ("*",)),
        ("https://shop.example", ("https://shop.example",)),
        ("https://shop.example, http://localhost:3000", ("https://shop.example", "http://localhost:3000")),
        # one reading alone
        ("https://shop.example,", ("https://shop.example",)),
        (" ,https://a.example,,https://a.example/", ("https://a.example",)),
        ("https://shop.example/", ("https://shop.example",)),
        ("HTTPS://Shop.Example", ("https://shop.example",)),
        ("https://shop.example:443", ("https://shop.example",)),
        ("http://shop.example:80/", ("http://shop.example",)),
        ("http://shop.example:443", ("http://shop.example:443",)),
        ("http://localhost:08080", ("http://localhost:8080",)),
        ("https://Bücher.example", ("https://xn--bcher-kva.example",)),
        ("http://[0:0:0:0:0:0:0:1]:3000", ("http://[::1]:3000",)),
        # as they are
        ("http://127.0.0.1:8080", ("http://127.0.0.1:8080",)),
        ("https://a_b.shop.example.", ("https://a_b.shop.example.",)),
        ("chrome-extension://abcdefghijklmnop", ("chrome-extension://abcdefghijklmnop",)),
        ("capacitor://localhost", ("capacitor://localhost",)),
    ],
)
def test_an_origin_is_read_as_a_browser_sends_it(given: str, read: tuple[str, ...]) -> None:
    assert origins(given) == read
    assert origins(",".join(read)) == read


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ('["https://shop.example"]', "without brackets and quotes"),
        ('"https://shop.example"', "without brackets and quotes"),
        ("'https://shop.example'", "without brackets and quotes"),
        (",", "origin 1 is missing"),
        (" , ,", "origin 1 is missing"),
        ("shop.example", "origin 1 lacks http:// or https://"),
        ("shop.example:8080", "origin 1 lacks http:// or https://"),
        ("//shop.example", "origin 1 lacks http:// or https://"),
        ("https:/shop.example", "origin 1 lacks http:// or https://"),
        ("localhost", "origin 1 lacks http:// or https://"),
        ("https://*.shop.example", "origin 1 has a * in it"),
        ("https://*", "origin 1 has a * in it"),
        ("*.shop.example", "origin 1 has a * in it"),
        ("null", "which any page can send"),
        ("https://a.example,https://shop.example/login", "origin 2 goes on behind the host"),
        ("https://shop.example?x=1", "origin 1 goes on behind the host"),
        ("https://shop.example/#", "origin 1 goes on behind the host"),
        ("https://shop.example//", "origin 1 goes on behind the host"),
        ("https://ann:hush@shop.example", "has a user name"),
        ("https://", "host that is none"),
        ("https://:8080", "host that is none"),
        ("https://shop..example", "host that is none"),
        ("https://shop .example", "host that is none"),
        ("https://a.example https://b.example", "goes on behind the host"),
        ("https://a.example;b.example", "host that is none"),
        ("http://192.168.1", "host that is none"),
        ("http://300.1.1.1", "host that is none"),
        ("http://[::1", "port that is none"),
        ("http://[::g]", "host that is none"),
        ("http://[::1]x", "port that is none"),
        ("https://shop.example:", "port that is none"),
        ("https://shop.example:https", "port that is none"),
        ("https://shop.example:0", "port that is none"),
        ("https://shop.example:65536", "port that is none"),
        ("htps://shop.example", "scheme that no page has"),
        ("wss://shop.example", "scheme that no page has"),
        ("file://shop", "scheme that no page has"),
    ],
)
def test_what_can_match_nothing_is_refused_and_not_repeated(given: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^(origin|write)") as told:
        origins(given)

    assert says in str(told.value)
    assert "hush" not in str(told.value)
