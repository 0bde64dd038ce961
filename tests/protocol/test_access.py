"""Who may do what: keys, tokens, certificates and the audit, with other people's clients where there are any."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from headrace_control.cli import main

PROGRAM = """
import sys
from headrace import Engine
from headrace.config import ServerSection
from headrace.serving import serve

settings = ServerSection(http_port=0, metrics_port=0, threads=2, access=sys.argv[3])
engine = Engine(sys.argv[1], clock_us=int(sys.argv[2]))
serve(engine, settings, lambda found: print(found["http"], found["grpc"], found["metrics"], flush=True))
"""
NOW_US = 1_357_009_200_000_000
PLAIN = {"inputs": [{"name": "features", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}]}
INFER = "/v2/models/plain/infer"


class Guarded(NamedTuple):
    """Its addresses."""

    http: str
    grpc: str
    metrics: str


@contextmanager
def guarded(project: Path, access: Path) -> Iterator[Guarded]:
    """A server with a policy."""
    arguments = [sys.executable, "-c", PROGRAM, str(project), str(NOW_US), str(access)]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        addresses = child.stdout.readline().split()
        assert addresses, "the server did not start"
        yield Guarded(*addresses)
    finally:
        child.terminate()
        _, errors = child.communicate(timeout=60)
    assert "hr_" not in errors


def create_key(access: Path, name: str, scopes: str, *more: str) -> str:
    arguments = ["keys", "create", name, "--scopes", scopes, "--write", str(access), "--json", *more]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return str(json.loads(done.stdout)["key"])


def status(
    url: str, body: Any = None, headers: Mapping[str, str] | None = None, context: ssl.SSLContext | None = None
) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_keys_reach_what_their_scopes_name(project: Path, tmp_path: Path) -> None:
    access = tmp_path / "access.toml"
    plain = create_key(access, "plain", "predict:plain")
    reader = create_key(access, "reader", "read_features:risk, read_metadata:*", "--expires", "30d", "--rate", "100/s")
    other = create_key(access, "other", "read_features:other*")
    with guarded(project, access) as (http, *_):
        url = f"http://{http}"
        assert status(f"{url}{INFER}", PLAIN)[0] == 401
        assert status(f"{url}/v2/health/ready")[0] == 200
        assert status(f"{url}{INFER}", PLAIN, bearer(plain))[0] == 200
        assert status(f"{url}{INFER}", PLAIN, {"X-API-Key": plain})[0] == 200
        code, refusal = status(f"{url}/v2/models/minutes/infer", PLAIN, bearer(plain))
        assert (code, refusal["code"]) == (403, "permission_denied")
        assert "predict:minutes" in refusal["error"]
        asked = {
            "feature_service": "risk",
            "entities": {"origin": ["JFK"]},
            "request": {"planned": ["2013-01-01T03:00:00Z"], "seats": [1]},
        }
        assert status(f"{url}/get-online-features", asked, bearer(reader))[0] == 200
        assert status(f"{url}/get-online-features", asked, bearer(other))[0] == 403
        assert status(f"{url}/v2/models", None, bearer(reader))[0] == 200
        wrong = plain[:-1] + ("A" if plain[-1] != "A" else "B")
        assert status(f"{url}{INFER}", PLAIN, bearer(wrong))[0] == 401
    audit = tmp_path / "access-audit.jsonl"
    text = audit.read_text()
    assert all(secret not in text + access.read_text() for secret in (plain, reader, other, wrong))
    rows = [json.loads(line) for line in text.splitlines()]
    assert [(row["subject"], row["resource"]) for row in rows] == [
        ("anonymous", "plain"),
        ("key:plain", "minutes"),
        ("key:other", "risk"),
        ("anonymous", "plain"),
    ]
    done = CliRunner().invoke(main, ["audit", "verify", str(audit), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["rows"]) == (0, 4)


@pytest.mark.parametrize("change", ["edited", "removed", "added", "cut"])
def test_a_broken_audit_is_named(tmp_path: Path, change: str) -> None:
    import hashlib

    columns = ("decision_id", "at", "subject", "action", "resource", "allowed", "rule", "reason", "evidence")
    lines: list[str] = []
    for number in range(5):
        prev = f"sha256:{hashlib.sha256(lines[-1].encode()).hexdigest()}" if lines else ""
        lines.append(json.dumps({**dict.fromkeys(columns, number), "prev": prev}))
    head = f"sha256:{hashlib.sha256(lines[-1].encode()).hexdigest()}"
    if change == "edited":
        lines[2] = lines[2].replace("2", "7", 1)
    elif change == "removed":
        del lines[2]
    elif change == "added":
        lines.insert(3, lines[1])
    else:
        del lines[3:]
    audit = tmp_path / "audit.jsonl"
    audit.write_text("".join(line + "\n" for line in lines))
    done = CliRunner().invoke(main, ["audit", "verify", str(audit), "--head", head])
    assert done.exit_code == 1
    named = {"edited": "row 4", "removed": "row 3", "added": "row 4", "cut": "no row has the digest"}
    assert named[change] in done.stdout


class Issuer:
    """Signs tokens, and publishes its keys in a file."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> str:
        numbers, point = self.rsa.public_key().public_numbers(), self.ec.public_key().public_numbers()
        keys = [
            {"kty": "RSA", "kid": "rsa", "n": number(numbers.n, 256), "e": number(numbers.e, 3)},
            {"kty": "EC", "crv": "P-256", "kid": "ec", "x": number(point.x, 32), "y": number(point.y, 32)},
        ]
        return json.dumps({"keys": keys})

    def token(self, algorithm: str = "RS256", kid: str = "rsa", **changed: Any) -> str:
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        now = int(time.time())
        claims = {"iss": "https://issuer.example", "aud": "headrace", "sub": "alice", "iat": now, "exp": now + 600}
        claims |= {"groups": ["analysts"]} | changed
        text = ".".join(url_base64(json.dumps(part).encode()) for part in ({"alg": algorithm, "kid": kid}, claims))
        if algorithm == "ES256":
            r, s = decode_dss_signature(self.ec.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        else:
            signature = self.rsa.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{url_base64(signature)}"


def url_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, size: int) -> str:
    return url_base64(value.to_bytes(size, "big"))


def test_tokens_of_the_issuer_are_taken(project: Path, tmp_path: Path) -> None:
    issuer = Issuer()
    (tmp_path / "keys.json").write_text(issuer.jwks())
    access = tmp_path / "access.toml"
    access.write_text(
        '[jwt]\nissuer = "https://issuer.example"\naudience = "headrace"\nalgorithms = ["RS256", "ES256"]\n'
        'jwks = "keys.json"\ngroups_claim = "groups"\n'
        '[[rules]]\nname = "analysts"\nsubjects = ["group:analysts"]\nscopes = ["predict:plain"]\n'
        '[[rules]]\nname = "bob"\nsubjects = ["jwt:bob"]\nscopes = ["read_metadata:*"]\n'
    )
    past = int(time.time()) - 3600
    with guarded(project, access) as (http, *_):
        url = f"http://{http}"
        for _ in range(2):
            assert status(f"{url}{INFER}", PLAIN, bearer(issuer.token()))[0] == 200
        assert status(f"{url}{INFER}", PLAIN, bearer(issuer.token("ES256", "ec")))[0] == 200
        assert status(f"{url}/v2/models", None, bearer(issuer.token()))[0] == 403
        assert status(f"{url}/v2/models", None, bearer(issuer.token(sub="bob", groups=[])))[0] == 200
        for wrong in (
            issuer.token(aud="another"),
            issuer.token(iss="https://issuer.example.evil"),
            issuer.token(exp=past),
            issuer.token(nbf=int(time.time()) + 3600),
            issuer.token(kid="ec"),
            Issuer().token(),
            issuer.token() + "A",
        ):
            assert status(f"{url}{INFER}", PLAIN, bearer(wrong))[0] == 401
    text = (tmp_path / "access-audit.jsonl").read_text()
    assert "eyJ" not in text
    assert "another audience" in text


class Authority:
    """Makes certificates of localhost and of clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
        self.certificate = self._signed(name, self.key.public_key(), [], is_authority=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _signed(self, name: x509.Name, public: Any, names: list[x509.GeneralName], is_authority: bool) -> Any:
        issuer = name if is_authority else self.certificate.subject
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if is_authority:
            usage = dict.fromkeys(
                (
                    "content_commitment",
                    "key_encipherment",
                    "data_encipherment",
                    "key_agreement",
                    "encipher_only",
                    "decipher_only",
                ),
                False,
            )
            signs = x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage)
            builder = builder.add_extension(signs, critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, file: str, common_name: str, *names: x509.GeneralName) -> tuple[Path, Path]:
        """The paths of a certificate and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        certificate = self._signed(name, key.public_key(), list(names), is_authority=False)
        paths = self.folder / f"{file}.pem", self.folder / f"{file}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        paths[1].chmod(0o600)
        return paths


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    local = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    authority.issue("server", "server", *local)
    return authority


TLS = '[tls]\ncertificate = "server.pem"\nkey = "server.key"\n'


def test_tritons_clients_over_tls(project: Path, tmp_path: Path, authority: Authority) -> None:
    import numpy as np
    import tritonclient.grpc as over_grpc
    import tritonclient.http as over_http

    access = tmp_path / "access.toml"
    access.write_text(TLS)
    key = create_key(access, "triton", "predict:plain,read_metadata:plain")
    values = np.array([[1.0, 2.0]])
    with guarded(project, access) as (http, grpc, _):
        with pytest.raises((OSError, HTTPException)):
            urllib.request.urlopen(f"http://{http}/v2/health/live", timeout=30)
        options = {"ca_certs": str(authority.file)}
        http_client = over_http.InferenceServerClient(http, ssl=True, ssl_options=options)
        grpc_client = over_grpc.InferenceServerClient(grpc, ssl=True, root_certificates=str(authority.file))
        for module, client in ((over_http, http_client), (over_grpc, grpc_client)):
            assert client.is_server_ready()
            tensor = module.InferInput("features", [1, 2], "FP64")
            tensor.set_data_from_numpy(values)
            headers = {"x-api-key": key}
            assert client.infer("plain", [tensor], headers=headers).get_response() is not None
            assert client.get_model_metadata("plain", headers={"authorization": f"Bearer {key}"}) is not None
            with pytest.raises(Exception, match="no credential"):
                client.infer("plain", [tensor])
            with pytest.raises(Exception, match="may not predict of 'minutes'"):
                client.infer("minutes", [tensor], headers=headers)
            client.close()


def test_a_client_is_who_its_certificate_names(project: Path, tmp_path: Path, authority: Authority) -> None:
    access = tmp_path / "access.toml"
    access.write_text(
        f'{TLS}client_ca = "ca.pem"\nrequired = true\n'
        '[[rules]]\nname = "batch"\nsubjects = ["mtls:spiffe://corp/batch"]\nscopes = ["predict:plain"]\n'
        '[[rules]]\nname = "hosts"\nsubjects = ["mtls:*.corp"]\nscopes = ["read_metadata:*"]\n'
        '[[rules]]\nname = "common"\nsubjects = ["mtls:only name"]\nscopes = ["read_metadata:plain"]\n'
    )

    def context(pair: tuple[Path, Path] | None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(authority.file))
        if pair is not None:
            made.load_cert_chain(*pair)
        return made

    uri = x509.UniformResourceIdentifier("spiffe://corp/batch")
    batch = context(authority.issue("batch", "any", x509.DNSName("any.corp"), uri))
    host = context(authority.issue("host", "any", x509.DNSName("host.corp")))
    common = context(authority.issue("common", "only name"))
    nobody = context(authority.issue("nobody", "spiffe://corp/batch", x509.DNSName("elsewhere")))
    other = tmp_path / "other"
    other.mkdir()
    stranger = context(Authority(other).issue("stranger", "any", uri))
    with guarded(project, access) as (http, *_):
        url = f"https://{http}"
        assert status(f"{url}{INFER}", PLAIN, context=batch)[0] == 200
        assert status(f"{url}/v2/models", context=batch)[0] == 403
        assert status(f"{url}/v2/models", context=host)[0] == 200
        assert status(f"{url}{INFER}", PLAIN, context=host)[0] == 403
        assert status(f"{url}/v2/models/plain", context=common)[0] == 200
        assert status(f"{url}{INFER}", PLAIN, context=nobody)[0] == 403
        for refused in (stranger, context(None)):
            with pytest.raises(OSError):
                status(f"{url}{INFER}", PLAIN, context=refused)
        # The name of a certificate is no token.
        assert status(f"{url}{INFER}", PLAIN, bearer("spiffe://corp/batch"), context=host)[0] == 401
    assert "spiffe://corp/batch" in (tmp_path / "access-audit.jsonl").read_text()


def test_without_a_policy_others_are_not_let_in(project: Path) -> None:
    arguments = ["serve", "--project", str(project), "--http", "0.0.0.0:0"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code != 0
    assert "could be reached from other machines" in done.output + done.stderr


@pytest.mark.parametrize("scopes", ["predict", "write:x", "predict:", ""])
def test_scopes_that_are_none_make_no_key(scopes: str) -> None:
    assert CliRunner().invoke(main, ["keys", "create", "k", "--scopes", scopes]).exit_code == 2


def test_a_name_has_one_key(tmp_path: Path) -> None:
    access = tmp_path / "access.toml"
    create_key(access, "one", "predict:*")
    before = access.read_text()
    done = CliRunner().invoke(main, ["keys", "create", "one", "--scopes", "predict:*", "--write", str(access)])
    assert done.exit_code != 0
    assert access.read_text() == before
    assert access.stat().st_mode & 0o777 == 0o600
