from hoi_assets.settings import Settings
from hoi_assets.settings.documentation import COMMAND, FILE, as_markdown


def test_configuration_page_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == as_markdown(), f"run `{COMMAND}`"


def test_configuration_page_names_every_section_with_its_range() -> None:
    page = as_markdown()
    for name in Settings.model_fields:
        assert f"## `{name}`" in page or f"| `{name}` |" in page
    assert "| `rank` | integer, 1 to 256 | `8` |  | `16` |" in page
