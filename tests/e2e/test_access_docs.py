"""Runs every example of docs/access.md; only addresses, issuers and paths of files are replaced."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from aiohttp import web
from cryptography.x509 import DNSName, UniformResourceIdentifier

from lessor_server.settings.access_file import load_access_rules
from tests.support.access_server import KEY, connect_securely, free_port, jwt, reload, who, write
from tests.support.certificates import Authority
from tests.support.clients import Lessor
from tests.support.json_web_tokens import IssuerServer
from tests.support.readme import README, Printed, Step, blocks, looks_like, steps, walk
from tests.support.server_process import TOKEN, ServerProcess, bare_environment
from tests.support.standin_control import StandIn

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

PAGE = (README.parent / "docs" / "access.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: f"## {part}" for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
FILES = {
    block.text.partition("\n")[0].removeprefix("# "): block for block in blocks(PAGE) if block.kind == "toml"
}
ISSUERS = {
    "Pods of Kubernetes": "https://kubernetes.default.svc.cluster.local",
    "GitHub Actions": "https://token.actions.githubusercontent.com",
    "People": "https://login.example.org",
}
KEY_SET = "https://kubernetes.default.svc/openid/v1/jwks"
CLAIMS: Mapping[str, Mapping[str, object]] = {
    "Pods of Kubernetes": {
        "kubernetes.io": {"namespace": "prod", "serviceaccount": {"name": "deployer", "uid": "1"}},
        "sub": "system:serviceaccount:prod:deployer",
    },
    "GitHub Actions": {"repository": "acme/app", "ref": "refs/heads/main", "sub": "repo:acme/app"},
    "People": {"email": "ann@example.org", "email_verified": True, "groups": ["staff", "on-call"]},
}
"""The claims of the JWTs that the issuers of the page would issue."""
ALONE = ("In five minutes", "Patterns", "Recipes")
"""Sections whose commands need no server, or start it."""
SERVED = ("Pods of Kubernetes", "Workloads with SPIRE", "People")


@dataclass(frozen=True, slots=True)
class Place:
    """A server with the settings file of the page, and what stands for the outside on this machine."""

    folder: Path
    issuer: IssuerServer
    root: Lessor
    replaced: Mapping[str, str]
    server_ca: Authority
    client_ca: Authority
    lax: int
    strict: int

    def here(self, text: str) -> str:
        """Return a text of the page with the addresses, issuers and files of this machine."""
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        return text

    def token(self, section: str) -> str:
        """Return the JWT of the caller of a section."""
        return jwt(self.issuer.url, **CLAIMS[section])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> AsyncIterator[Place]:
    """Start the server of the page by its settings file, with the roles that the page uses."""
    folder = tmp_path_factory.mktemp("access")
    server_ca, client_ca = Authority(folder, "server"), Authority(folder, "clients")
    tls = server_ca.sign("localhost")
    pair = client_ca.sign(
        "svid", names=[UniformResourceIdentifier("spiffe://example.org/ns/prod/sa/deployer")]
    )
    lax, strict = free_port(), free_port()
    async with IssuerServer(KEY) as issuer:
        replaced = {
            "lessor.example.org": "localhost",
            '"0.0.0.0:': '"127.0.0.1:',
            "50051": str(lax),
            "50052": str(strict),
            KEY_SET: issuer.jwks_url,
            **dict.fromkeys(ISSUERS.values(), issuer.url),
            "/etc/lessor/tls.pem": str(tls.cert),
            "/etc/lessor/tls.key": str(tls.key),
            "/etc/lessor/client-ca.pem": str(client_ca.ca),
            "/etc/lessor/spire-ca.pem": str(client_ca.ca),
            "/etc/lessor/access.toml": str(folder / "access.toml"),
            "/etc/ssl/lessor-ca.pem": str(server_ca.ca),
            "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt": str(server_ca.ca),
            "/var/run/secrets/tokens/lessor": str(folder / "service-account-token"),
            "/run/spire/svid.pem": str(pair.cert),
            "/run/spire/svid.key": str(pair.key),
        }
        settings = FILES["lessor.toml"].text
        for old, new in replaced.items():
            settings = settings.replace(old, new)
        (folder / "lessor.toml").write_text(settings, encoding="utf-8")
        write(folder / "access.toml", "")
        async with started(folder, aws), connect_securely(lax, server_ca, TOKEN) as root:
            await root.enable("aws", aws.url)
            for role in ("deploy-prod", "deploy-dev", "deploy-hosts", "read-only"):
                await root.put_role("aws", role)
            yield Place(folder, issuer, root, replaced, server_ca, client_ca, lax, strict)


@asynccontextmanager
async def started(folder: Path, aws: StandIn) -> AsyncIterator[None]:
    """Run a server by ``lessor.toml``."""
    server = ServerProcess()
    variables = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}
    await server.start(folder, variables, "--config", str(folder / "lessor.toml"), without=["LESSOR_LISTEN"])
    try:
        yield
    finally:
        await server.kill()


def check(todo: list[Step], printed: Mapping[int, Printed]) -> None:
    """Check that each step printed what the page shows."""
    for step in todo:
        assert step.line in printed, f"not reached: {step.typed}"
        answer = printed[step.line]
        assert step.shown is None or looks_like(step.shown, answer.text), f"{step.typed}\n{answer.text}"
        assert answer.failed == step.is_refused, f"{step.typed}\n{answer.text}"


async def type_all(section: str, text: str, folder: Path) -> None:
    """Type all commands of a section into one shell."""
    todo = steps(text)
    assert todo, section
    check(todo, await walk(text, todo, folder))


def access_file_of(section: str) -> str:
    """Return the access file that a section shows."""
    [text] = [
        block.text
        for block in blocks(SECTIONS[section])
        if block.kind == "toml" and not block.text.startswith("# lessor.toml")
    ]
    return text


@pytest.mark.parametrize("section", ALONE)
async def test_the_commands_of_a_section_print_what_it_shows(section: str, tmp_path: Path) -> None:
    aws_port = free_port()
    text = SECTIONS[section].replace("127.0.0.1:50051", f"127.0.0.1:{free_port()}")
    text = text.replace("lessor dev ", f"lessor dev --aws-listen 127.0.0.1:{aws_port} ")
    listen = re.search(r"LESSOR_ADDR=(127\.0\.0\.1:\d+)", text)
    if listen is not None:
        text = text.replace("lessor dev ", f"lessor dev --listen {listen[1]} ")
    if section != "In five minutes":
        text = f'```sh\nexport PATH="$PWD/.venv/bin:$PATH"\n```\n\n{text}'
    await type_all(section, text, tmp_path)


@pytest.mark.parametrize("section", SERVED)
async def test_a_caller_of_each_kind_gets_what_its_section_shows(
    place: Place, section: str, tmp_path: Path
) -> None:
    await use(place, section)
    if section in CLAIMS:
        (place.folder / "service-account-token").write_text(place.token(section), encoding="utf-8")
        (tmp_path / "id-token").write_text(place.token(section), encoding="utf-8")
    text = f'```sh\nexport PATH="$PWD/.venv/bin:$PATH"\n```\n\n{place.here(SECTIONS[section])}'
    await type_all(section, text, tmp_path)


async def use(place: Place, section: str) -> None:
    """Let the server use the access file of a section."""
    write(place.folder / "access.toml", place.here(access_file_of(section)))
    await reload(place.root)


async def test_both_tokens_of_a_service_work_while_it_is_given_the_new_one(place: Place) -> None:
    text = place.here(FILES["service.toml"].text).replace('"10.0.0.0/8"', '"127.0.0.0/8"')
    tokens = ["the-old-token-of-payments", "the-new-token-of-payments"]
    digests = re.findall(r'"([0-9a-f]{64})"', text)
    assert len(digests) == len(tokens)
    for digest, token in zip(digests, tokens, strict=True):
        text = text.replace(digest, hashlib.sha256(token.encode()).hexdigest())
    write(place.folder / "access.toml", text)
    await reload(place.root)
    await place.root.put_role("aws", "payments-db")
    for token in tokens:
        async with connect_securely(place.lax, place.server_ca, token) as caller:
            assert ((await who(caller)).identity, dict((await who(caller)).labels)) == (
                "payments", {"team": "payments"},
            )  # fmt: skip
            assert (await caller.generate("aws", "payments-db", 7200)).lease_duration.seconds == 3600


@asynccontextmanager
async def token_endpoint(token: str, secret: str) -> AsyncIterator[str]:
    """Answer as the endpoint of GitHub Actions that gives a job its OIDC token."""

    async def answer(request: web.Request) -> web.Response:
        assert request.query["audience"] == "lessor"
        assert request.headers["Authorization"] == f"bearer {secret}"
        return web.json_response({"value": token})

    app = web.Application()
    app.router.add_get("/token", answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/token?api-version=2"
    finally:
        await runner.cleanup()


async def test_the_workflow_gets_credentials_by_the_token_of_its_job(place: Place, tmp_path: Path) -> None:
    await use(place, "GitHub Actions")
    [shown] = [block.text for block in blocks(SECTIONS["GitHub Actions"]) if block.kind == "yaml"]
    workflow = yaml.safe_load(place.here(shown))
    assert workflow["permissions"] == {"id-token": "write"}
    job = workflow["jobs"]["deploy"]
    script = job["steps"][-1]["run"]
    (tmp_path / ".venv").symlink_to(Path(__file__).parents[2] / ".venv")
    async with token_endpoint(place.token("GitHub Actions"), "job-secret") as url:
        env = {
            **bare_environment(),
            **job["env"],
            "ACTIONS_ID_TOKEN_REQUEST_URL": url,
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "job-secret",
            "GITHUB_RUN_ID": "42",
        }
        process = await asyncio.create_subprocess_exec(
            "bash", "-e", "-c", f'PATH="$PWD/.venv/bin:$PATH"\n{script}', cwd=tmp_path, env=env,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out = (await process.communicate())[0].decode()
    assert process.returncode == 0, out
    assert re.search(r"^identity +gh/acme/app$", out, re.MULTILINE)
    assert re.search(r"^::add-mask::.{20,}$", out, re.MULTILINE)


async def test_the_pod_of_the_page_names_the_places_that_its_commands_use() -> None:
    [shown] = [block.text for block in blocks(SECTIONS["Pods of Kubernetes"]) if block.kind == "yaml"]
    spec = yaml.safe_load(shown)["spec"]
    [container] = spec["containers"]
    env = {one["name"]: one["value"] for one in container["env"]}
    volumes = {one["name"]: one for one in spec["volumes"]}
    mounts = {one["name"]: one for one in container["volumeMounts"]}
    assert volumes.keys() == mounts.keys()
    [source] = volumes["lessor-token"]["projected"]["sources"]
    projected = source["serviceAccountToken"]
    assert env["LESSOR_TOKEN_FILE"] == f"{mounts['lessor-token']['mountPath']}/{projected['path']}"
    assert env["LESSOR_CACERT"] == mounts["lessor-ca"]["mountPath"]
    assert all(f"{name}={value}" in SECTIONS["Pods of Kubernetes"] for name, value in env.items())
    assert projected["audience"] == "lessor"


async def test_a_host_with_a_certificate_is_known_by_its_name(place: Place) -> None:
    await use(place, "Workloads with SPIRE")
    pair = place.client_ca.sign("host", names=[DNSName("one.build.example.org")])
    async with connect_securely(place.strict, place.server_ca, pair=pair) as caller:
        answer = await who(caller)
        assert (answer.identity, dict(answer.labels)) == ("host/one", {"namespace": "hosts"})
        assert (await caller.generate("aws", "deploy-hosts")).lease_id


@pytest.mark.parametrize("name", [name for name in FILES if name != "lessor.toml"])
async def test_each_access_file_of_the_page_is_valid(place: Place, name: str) -> None:
    assert load_access_rules(place.here(FILES[name].text), name).policies


async def test_each_part_of_the_page_is_run() -> None:
    """No block is left out, and every reason of the page exists."""
    typed = {name for name, text in SECTIONS.items() if steps(text)}
    assert typed == {*ALONE, *SERVED}
    reasons = (README.parent / "docs" / "reasons.md").read_text(encoding="utf-8")
    named = re.findall(r"`([A-Z]{3,}(?:_[A-Z]+)+)`", SECTIONS["What is refused"])
    statuses = {"PERMISSION_DENIED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"}
    assert [one for one in named if f"## {one}\n" not in reasons and one not in statuses] == []
