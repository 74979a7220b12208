"""The page of examples shows what the commands print today."""

from pathlib import Path

import pytest
import torch

from hoi_assets_tests.preflight.doctor_page import COMMAND, FILE, as_markdown, without_figures


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the page is that of a machine without a GPU")
def test_page_of_examples_is_what_the_commands_print(tmp_path: Path) -> None:
    wanted = without_figures(as_markdown(tmp_path))
    assert without_figures(FILE.read_text(encoding="utf-8")) == wanted, f"run `{COMMAND}`"
