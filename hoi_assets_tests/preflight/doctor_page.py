"""Writes `docs/doctor.md`: `hoi doctor` and `hoi plan` on one good and three broken profiles.

python -m hoi_assets_tests.preflight.doctor_page
"""

import contextlib
import io
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hoi_assets.cli.main import main
from hoi_assets.settings import ROOT
from hoi_assets_tests.engines.hub_server import Hub, Repository
from hoi_assets_tests.engines.test_model_fetch import REVISION, point_at
from hoi_assets_tests.llm.chat_server import KEY, Answer, Request, Server
from hoi_assets_tests.preflight.profiles import (
    GATED,
    bare_machine,
    good_profile,
    make_models,
    nothing,
    sees_pictures,
    wrong_files,
    wrong_services,
)
from hoi_assets_tests.preflight.test_plan import CATEGORY

FILE = ROOT / "docs" / "doctor.md"
COMMAND = "python -m hoi_assets_tests.preflight.doctor_page"
NAMES = (CATEGORY, "functional")
CASES = (
    ("A good profile", nothing, "Small models, so that sizes are small too. The judge shares the "
     "critic's call."),
    ("A bare machine", bare_machine, "Nothing is fetched; no GPU, no server, no photos."),
    ("Wrong files", wrong_files, "Models of another class, shape or dtype, a text model as critic, "
     "photos that cannot be used."),
    ("Wrong services", wrong_services, "A server without structured output, a misspelt image "
     "model, a cap without prices, another profile's home."),
)  # fmt: skip
HEAD = f"""\
<!-- Written by `{COMMAND}`; do not edit. -->

# What `hoi doctor` and `hoi plan` say

Output of both commands for one good profile and three broken ones, with small random models, and
servers and a hub on loopback. A test makes all of it anew and compares; sizes and free memory may
differ. `hoi doctor` prints the plan as well, which is left out of its output here; of the broken
profiles its lines that begin with `ok` are left out too. [full-size.md](full-size.md) says when
to run them.
"""
FIGURE = re.compile(r"\d[\d.]* (?:bytes|kB|MB|GB)")
RULE = re.compile(r"[ -]{2,}")


def as_markdown(folder: Path) -> str:
    """The page; profiles, models and outputs go below `folder`."""
    models = make_models(folder / "models")
    parts = [HEAD]
    for number, (title, change, about) in enumerate(CASES):
        home = folder / f"case{number}"
        home.mkdir()
        doctor, plan = _said(change, home, models)
        findings, _, rest = doctor.partition("\n\n")
        if change is nothing:
            assert plan in rest, "hoi doctor ends with what hoi plan prints"
        else:
            findings = "\n".join(
                line for line in findings.splitlines() if not line.startswith("ok ")
            )
        verdict = doctor.rstrip().rpartition("\n")[2]
        names = " ".join(NAMES)
        parts.append(f"\n## {title}\n\n{about}\n")
        parts.append(f"\n```\n$ hoi doctor {names}\n{findings}\n\n{verdict}\n```\n")
        parts.append(f"\n```\n$ hoi plan {names}\n{plan.rstrip()}\n```\n")
    return "".join(parts)


def without_figures(page: str) -> str:
    """The page without what differs between machines: sizes, and widths of columns."""
    return RULE.sub(" ", FIGURE.sub("N", page))


def _said(change: Callable[..., object], folder: Path, models: Path) -> tuple[str, str]:
    """Output of doctor and plan for a changed profile, with names in place of what is temporary."""
    servers: list[Server] = []

    def serve(behaviour: Callable[[Request, int], Answer]) -> Server:
        servers.append(Server(behaviour))
        return servers[-1]

    hub = Hub({GATED: Repository(models / "sdxl", REVISION, gated=True)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOI_HOME", str(folder / "home"))
        patch.setenv("HOI_API_KEY", KEY)
        point_at(hub, folder, patch)
        profile = good_profile(models, folder, serve(sees_pictures))
        change(profile, folder, serve, models)
        path = folder / "mine.yaml"
        path.write_text(yaml.safe_dump(profile), "utf-8")
        said = [_run([name, *NAMES, "--profile", str(path)]) for name in ("doctor", "plan")]
    hub.close()
    for server in servers:
        server.close()
    names = {
        **{one.url: f"http://127.0.0.1:{8000 + n}/v1" for n, one in enumerate(servers)},
        hub.url: "https://huggingface.co",
        str(models): "/disk/models",
        str(folder): "/disk",
        str(ROOT): "/hoi-assets",
    }
    for temporary, name in names.items():
        said = [text.replace(temporary, name) for text in said]
    return said[0], said[1]


def _run(command: list[str]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        main(command)
    return out.getvalue()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        FILE.write_text(as_markdown(Path(place)), encoding="utf-8")
