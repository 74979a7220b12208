"""Canary keys through runs full of errors; afterwards every byte that was kept is searched."""

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from urllib.parse import quote, quote_plus

import dagster as dg

from hoi_assets.defs.project import assets_below
from hoi_assets.defs.resources import PlatformResource
from hoi_assets.publishing.asset import PLATFORM, bind, stage_of
from hoi_assets.settings import ROOT
from hoi_assets_tests.llm.chat_server import Answer, Request, Server
from hoi_assets_tests.pipeline_fixture import CATEGORIES, SCENARIO, environment, write_profile
from proofs.bounds import Attack

KEY = "sk-canary/0123+4567=89abcdef"
IN_URL = "url-canary/0123+4567=89"
PASSWORD = "pass-canary:0123+4567/89"
SECRETS = (KEY, IN_URL, PASSWORD)
LONGEST_S = 600


def _error(status: int, text: str, code: str = "") -> Answer:
    error = {"message": text, "code": code or text, "type": text}
    return Answer(status=status, body=json.dumps({"error": error}))


TEXT = f"key {KEY}; url {IN_URL}, {quote(IN_URL, safe='')}; login {PASSWORD}"
BASE64 = base64.b64encode(KEY.encode()).decode()

# Each repeats every secret in its own way.
ANSWERS: dict[str, Callable[[], Answer]] = {
    "an object of another form": lambda: Answer(json.dumps({"answer": TEXT})),
    "a refusal": lambda: Answer(TEXT),
    "a model called after the key": lambda: Answer("{}", model=TEXT),
    "an error with status 200": lambda: Answer(body=json.dumps({"error": {"message": TEXT}})),
    "a page": lambda: Answer(body=f"<html>{TEXT}</html>"),
    "429": lambda: _error(429, f"insufficient_quota {TEXT}", "insufficient_quota"),
    "400": lambda: _error(400, TEXT),
    "413": lambda: _error(413, TEXT),
    "500": lambda: _error(500, TEXT),
    "base64": lambda: _error(400, BASE64),
    "cut short": lambda: _error(401, f"Incorrect API key provided: {KEY[:-4]}****"),
    "401": lambda: _error(401, TEXT),
    "403": lambda: _error(403, TEXT),
    "404": lambda: _error(404, TEXT),
}


def forms(secret: str) -> Iterator[bytes]:
    """A secret as it may be written."""
    for text in (secret, quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield text.encode()
        yield json.dumps(text)[1:-1].encode()
    yield secret[:14].encode()  # cut short
    yield secret.encode("utf-16-le")
    yield secret.encode().hex().encode()
    # Within a longer text base64 depends on the place; what does not is in the middle.
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + secret.encode())
        yield coded[4 if shift else 0 : len(coded) - 4]


def search(*folders: Path) -> str:
    """Where a secret is kept, in any form; empty where nowhere."""
    wanted = [(secret, form) for secret in SECRETS for form in set(forms(secret))]
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            data = path.read_bytes()
            for secret, form in wanted:
                if form in data:
                    return f"{secret!r} as {form!r} in {path.relative_to(folder)}"
    return ""


def _run(section: str, name: str, apart: bool = False) -> Callable[[Path], str]:
    """Materialise what asks an endpoint that answers so.

    Args:
        apart: by Dagster's command line in processes of their own, whose output is searched too.
    """

    def run(folder: Path) -> str:
        seen: list[int] = []

        def behaviour(request: Request, number: int) -> Answer:
            seen.append(number)
            return ANSWERS[name if name in ANSWERS else list(ANSWERS)[number % len(ANSWERS)]]()

        server = Server(behaviour)
        with closing(server):
            login = f"user:{quote(PASSWORD, safe='')}@{server.url.removeprefix('http://')}"
            url = f"http://{login}?api-key={quote(IN_URL, safe='')}"
            endpoint = {"endpoint": url, "model": "m", "max_attempts": 1, "timeout_s": 60}
            (folder / "own").mkdir()
            profile = write_profile(folder / "own", **{section: endpoint})
            home, printed = folder / "home", folder / "printed"
            printed.mkdir()
            for asset, partition in STEPS[section]:
                make = _by_command if apart else _here
                (printed / f"{asset}.txt").write_bytes(make(home, profile, asset, partition))
        if not seen:
            return "the endpoint was not asked"
        if not any(path.suffix == ".db" for path in home.rglob("*")):
            return "Dagster kept nothing"
        return search(home, printed)

    return run


STEPS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "prompter": (("base_prompt_taxonomy", None), ("detailed_prompts", CATEGORIES[0])),
    "decomposer": (("interacting_prompts", SCENARIO), ("interaction_decompositions", SCENARIO)),
}


def _dagster_home(home: Path) -> Path:
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dagster.yaml").write_bytes((ROOT / "dagster.yaml").read_bytes())
    return folder


def _by_command(home: Path, profile: Path, asset: str, partition: str | None) -> bytes:
    """What the process printed."""
    command = ["-m", "dagster", "asset", "materialize", "-m", "hoi_assets.definitions"]
    command += ["--select", asset, *(["--partition", partition] if partition else [])]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(home, profile)
        | {"DAGSTER_HOME": str(_dagster_home(home)), "HOI_API_KEY": KEY, "OPENAI_LOG": "debug"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LONGEST_S,
    )
    return done.stdout


def _here(home: Path, profile: Path, asset: str, partition: str | None) -> bytes:
    """What was printed; the instance is one of files, as a user's."""
    platform = PlatformResource(profile=str(profile), home=str(home))
    # Prompts may be asked for by a round.
    names = ["round_plan", *(name for name, _ in (*STEPS["prompter"], *STEPS["decomposer"]))]
    declared = [one for one in assets_below("hoi_assets.defs") if stage_of(one).name in names]
    _, assets = bind(declared, platform.settings)
    os.environ["HOI_API_KEY"] = KEY
    printed = io.StringIO()
    with (
        redirect_stdout(printed),
        redirect_stderr(printed),
        dg.DagsterInstance.from_config(str(_dagster_home(home))) as instance,
    ):
        dg.materialize(
            assets,
            selection=[asset],
            partition_key=partition,
            instance=instance,
            resources={PLATFORM: platform},
            raise_on_error=False,
        )
    return printed.getvalue().encode()


CANARIES = (
    *(
        Attack(f"canary keys, {section}: {name}", _run(section, name), LONGEST_S)
        for section in STEPS
        for name in (*ANSWERS, "all in turn")
    ),
    *(
        Attack(f"canary keys, by command, {section}: {name}", _run(section, name, True), LONGEST_S)
        for section, name in (("prompter", "401"), ("decomposer", "all in turn"))
    ),
)
