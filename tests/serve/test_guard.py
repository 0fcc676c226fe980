"""Who may come in."""

import contextlib
import dataclasses

import httpx
import pytest

from nextword.base.errors import SettingsError
from nextword.serve.guard import is_local
from nextword.serve.ports import open_door
from nextword.serve.start import settings_from
from tests.serve.conftest import running

ASK = {"prompt": "We", "max_tokens": 1}


def ask(server, **headers):
    address = f"{server.address}/v1/completions"
    return httpx.post(address, json=ASK, headers=headers).status_code


def test_only_names_of_this_server_are_answered(server):
    for host in ("localhost", "127.0.0.1:8000", "LOCALHOST:1", "[::1]:80"):
        assert ask(server, Host=host) == 200
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1"):
        assert ask(server, Host=host) == 421, host


@pytest.fixture
def everywhere(small_place, monkeypatch):
    """A server that was told to listen on all addresses, though it listens on this machine's."""
    from nextword.serve.guard import Guard

    @contextlib.contextmanager
    def opened(**options):
        real = Guard.__init__

        def told(self, app, settings):
            real(self, app, dataclasses.replace(settings, host="0.0.0.0"))

        with monkeypatch.context() as patch:
            patch.setattr(Guard, "__init__", told)
            with running(small_place, **options) as server:
                yield server

    return opened


def test_on_all_addresses_without_a_key_names_must_be_known(everywhere):
    with everywhere(insecure=True) as server:
        for host in ("192.168.1.5:8000", "[fe80::1]:80", "localhost"):
            assert ask(server, Host=host) == 200, host
        assert ask(server, Host="evil.example") == 421  # a name that was made to point here
    with everywhere(insecure=True, allow_hosts=("box.lan",)) as server:
        assert ask(server, Host="box.lan:80") == 200
        assert ask(server, Host="evil.example") == 421
        assert ask(server, Host="192.168.1.5") == 421
    with everywhere(api_key="sesame") as server:
        assert ask(server, Host="any.example", Authorization="Bearer sesame") == 200
        assert ask(server, Host="any.example") == 401


def test_pages_of_other_origins_are_refused(server):
    own = server.address
    assert ask(server, Origin=own) == 200
    for origin in ("https://evil.example", "null", "http://localhost:1", "http://[::1"):
        assert ask(server, Origin=origin) == 403, origin
    # A page whose name was made to point here says so in both places.
    assert ask(server, Origin="http://evil.example:1", Host="evil.example:1") == 421
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answered = httpx.options(f"{server.address}/v1/completions", headers=preflight)
    assert answered.status_code == 403
    assert "access-control-allow-origin" not in answered.headers


def test_an_origin_that_was_allowed_may_send_its_key(small_place):
    origin = "https://page.example"
    with running(small_place, allow_origins=(origin,), api_key="sesame") as server:
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        answered = httpx.options(f"{server.address}/v1/completions", headers=asked)
        assert answered.status_code == 200
        assert answered.headers["access-control-allow-origin"] == origin
        assert "authorization" in answered.headers["access-control-allow-headers"].lower()
        assert ask(server, Origin=origin, Authorization="Bearer sesame") == 200
        assert ask(server, Origin=origin) == 401
        refused = httpx.get(f"{server.address}/v1/models", headers={"Origin": origin})
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert refused.headers["access-control-allow-origin"] == origin  # its page may read why
        other = httpx.get(f"{server.address}/v1/models", headers={"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers
        assert ask(server, Origin="https://other.example", Authorization="Bearer sesame") == 403


def test_the_key_is_needed_where_there_is_one(small_place):
    with running(small_place, api_key="sesame") as server:
        for given in ("", "Bearer", "Bearer sesam", "Bearer sesame2", "Basic sesame", "Bearer é"):
            answered = httpx.post(
                f"{server.address}/v1/completions", json=ASK,
                headers={"Authorization": given.encode()},
            )  # fmt: skip
            assert answered.status_code == 401, given
            assert answered.headers["WWW-Authenticate"] == "Bearer"
            assert answered.json()["error"]["code"] == "invalid_api_key"
        assert ask(server, Authorization="Bearer sesame") == 200
        assert server.get("/v1/models").status_code == 401
        assert server.get("/metrics").status_code == 401
        assert server.get("/health").status_code == 200


def test_keys_are_compared_in_constant_time(monkeypatch, small_place):
    import hmac

    seen, real = [], hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: (seen.append((a, b)), real(a, b))[1])
    with running(small_place, api_key="sesame") as server:
        ask(server, Authorization="Bearer open")
    assert (b"open", b"sesame") in seen


def test_a_large_request_is_not_read(small_place):
    with running(small_place, body_bytes=2000) as server:
        address = f"{server.address}/v1/completions"
        long = {"prompt": "x" * 3000}
        assert httpx.post(address, json=long).status_code == 413

        def chunks():  # whose length is not told beforehand
            for _ in range(100):
                yield b"[" * 1000

        assert httpx.post(address, content=chunks()).status_code == 413
        assert httpx.post(address, json={"prompt": "x" * 30, "max_tokens": 1}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_other_addresses_need_a_key_or_a_word(host, capsys, small_place):
    from nextword.serve.start import listen

    assert not is_local(host)
    with pytest.raises(SettingsError, match="api-key"):
        listen((small_place,), settings_from({"host": host}), say=print)
    for local in ("127.0.0.1", "::1", "localhost", "127.5.5.5"):
        assert is_local(local)


def test_a_key_may_stand_in_the_environment(monkeypatch):
    monkeypatch.setenv("NEXTWORD_API_KEY", "sesame")
    assert settings_from({}).api_key == "sesame"
    assert settings_from({"api_key": "other"}).api_key == "other"
    with pytest.raises(SettingsError, match="empty"):
        settings_from({"api_key": " "})


def test_a_port_that_is_taken_names_one_that_is_free():
    with open_door("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
        with pytest.raises(SettingsError, match=r"--port \d+ is free") as caught:
            open_door("127.0.0.1", port)
        free = int(str(caught.value).split("--port ")[1].split()[0])
        open_door("127.0.0.1", free).close()
    with pytest.raises(SettingsError, match="no such address"):
        open_door("no such host.invalid", 1)
