"""The documentation against the program: what it lists exists, and what it links is there.

``python tests/python/test_docs.py`` writes the table of options anew from ``twinspan --help``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from support import FOREIGN_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]

BEGIN, END = "<!-- options: begin -->\n", "<!-- options: end -->\n"
OPTION = re.compile(
    r" {2,6}(?:(?P<short>-\w), )?(?P<name>--[\w-]+|\[\w+\]\.\.\.)(?: <(?P<value>.+)>)?$"
)
DEFAULT = re.compile(r" \[default: (?P<value>[^]]+)\]$")
LINK = re.compile(r"\[(?P<text>[^]]+)\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")
FUNCTION = re.compile(r"`(?:\w+::)*(?P<name>\w+)(?:\(\))?`$")


def twinspan(*arguments: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """What the command prints."""
    inherited = {k: v for k, v in os.environ.items() if not FOREIGN_ENVIRONMENT.match(k)}
    process = subprocess.run(
        [sys.executable, "-m", "twinspan", *arguments],
        check=False,
        cwd=cwd,
        env={**inherited, "COLUMNS": "100", **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def table_of_options(help_text: str) -> str:
    """The options in the order and under the headings of the help."""
    lines: list[str] = []
    paragraphs = [text.split("\n") for text in help_text.split("\n\n")]
    for heading, *body in paragraphs:
        entries: list[tuple[re.Match[str], list[str]]] = []
        for line in body:
            if option := OPTION.match(line):
                entries.append((option, []))
            elif entries:
                entries[-1][1].append(line.strip())
        if not entries:
            continue
        lines += ["", f"### {heading.rstrip(':')}", ""]
        lines += ["| command line | file | environment | default | |", "|---|---|---|---|---|"]
        lines += [row(option, " ".join(words)) for option, words in entries]
    return "\n".join(lines[1:]) + "\n"


def row(option: re.Match[str], meaning: str) -> str:
    name, value = option["name"], option["value"]
    key = name.strip("-[].").replace("-", "_").lower()
    spoken_only = key in {"help", "version"}
    flags = [option["short"], f"{name} {value}" if value else name]
    if name.startswith("--") and not value and not spoken_only:
        flags.append(name.replace("--", "--no-", 1))
    default = DEFAULT.search(meaning)
    cells = [
        ", ".join(f"`{flag}`" for flag in flags if flag),
        "" if spoken_only or key == "config" else f"`{key}`",
        "" if spoken_only else f"`TWINSPAN_{key.upper()}`",
        f"`{default['value']}`" if default else "",
        DEFAULT.sub("", meaning),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def test_the_reference_lists_the_options_of_the_help() -> None:
    _, rest = PAGE.read_text("utf-8").split(BEGIN)
    table, _ = rest.split(END)
    written = table.splitlines()
    assert written == table_of_options(twinspan("--help")).splitlines(), (
        f"`python {Path(__file__).relative_to(ROOT)}` writes the table anew"
    )


def test_the_reference_has_the_exit_codes_of_the_help() -> None:
    _, listed = twinspan("--help").split("Exit codes:\n")
    codes = re.findall(r"^ +(\d) (.+)$", listed, re.MULTILINE)
    assert len(codes) > 2
    page = PAGE.read_text("utf-8")
    assert [code for code in codes if "| {} | {} |".format(*code) not in page] == []


def test_the_file_that_the_reference_shows_is_accepted(tmp_path: Path) -> None:
    _, example, *_ = PAGE.read_text("utf-8").split("```toml\n# twinspan.toml")
    (tmp_path / "twinspan.toml").write_text(example.partition("```")[0], "utf-8")
    shop = str(ROOT / "examples" / "strangler")
    listing = twinspan("routes", "--app-dir", shop, cwd=tmp_path, env={"SHOP_DATA": str(tmp_path)})
    assert "owned by new" in listing


def test_what_the_documentation_links_is_there() -> None:
    missing = []
    for page in PAGES:
        for link in LINK.finditer(page.read_text("utf-8")):
            if ":" in link["target"]:
                continue
            target = page.parent / link["target"]
            function = FUNCTION.match(link["text"]) if target.suffix == ".rs" else None
            if not target.exists():
                missing.append(f"{page.name}: {link['target']}")
            elif function and not defines(target.read_text("utf-8"), function["name"]):
                missing.append(f"{page.name}: {link['text']} in {link['target']}")
    assert missing == []


def defines(source: str, name: str) -> bool:
    return re.search(rf"\b(fn|struct|enum|trait|type|const|mod) {name}\b", source) is not None


if __name__ == "__main__":
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(before + BEGIN + table_of_options(twinspan("--help")) + END + after, "utf-8")
