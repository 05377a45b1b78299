"""The papers beside the code agree with it: citation, changelog, contributing, container, hooks, pins."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import selfimprove

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()


def pins() -> dict[str, str]:
    """Version by canonical name, as constraints.txt has them."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


class TestConstraints:
    def test_names_are_canonical_sorted_and_pinned_once(self) -> None:
        lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
        names = [line.partition("==")[0] for line in lines]
        assert names == sorted(set(names))
        assert names == [canonicalize_name(name) for name in names]

    def test_every_dependency_is_pinned_within_its_range_but_torch(self) -> None:
        extras = [
            one for name in ("dev", "docs", "notebooks", "outer") for one in PROJECT["optional-dependencies"][name]
        ]
        for text in [*PROJECT["dependencies"], *extras]:
            wanted = Requirement(text)
            if wanted.name not in ("torch", "selfimprove"):
                assert wanted.specifier.contains(pins()[canonicalize_name(wanted.name)]), text

    def test_torch_and_cuda_stay_out(self) -> None:
        assert not [name for name in pins() if name == "torch" or name.startswith(("triton", "nvidia-cu"))]


class TestCitation:
    """The schema is CFF 1.2.0's, as far as this file uses it; `cffconvert --validate` was run once by hand."""

    citation: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text())

    def test_it_has_what_the_schema_requires_and_no_unknown_key(self) -> None:
        assert self.citation["cff-version"] == "1.2.0"
        assert {"message", "title", "authors", "type"} <= set(self.citation)
        known = {"cff-version", "message", "type", "title", "abstract", "authors", "version", "license", "keywords"}
        assert set(self.citation) <= known
        assert self.citation["type"] == "software"
        assert self.citation["authors"]
        assert all(set(author) == {"name"} and author["name"] for author in self.citation["authors"])
        assert all(isinstance(word, str) for word in self.citation["keywords"])

    def test_version_license_and_authors_are_those_of_the_package(self) -> None:
        assert self.citation["version"] == selfimprove.__version__
        assert self.citation["license"] == PROJECT["license"]
        assert self.citation["authors"][0]["name"] in (ROOT / "LICENSE").read_text()


def test_the_changelog_has_the_form_and_the_version_it_names_is_this_one() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\]", text, flags=re.MULTILINE)
    assert versions[0] in ("Unreleased", selfimprove.__version__)
    assert selfimprove.__version__ in text
    kinds = set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


class TestHooks:
    hooks: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())

    def test_nothing_is_downloaded(self) -> None:
        assert [repository["repo"] for repository in self.hooks["repos"]] == ["local"]
        assert {hook["language"] for hook in self.hooks["repos"][0]["hooks"]} == {"system"}

    def test_each_runs_what_make_lint_runs(self) -> None:
        lint = MAKEFILE.partition("\nlint:")[2].partition("\n\n")[0].replace("$(BIN)", ".venv/bin")
        for hook in self.hooks["repos"][0]["hooks"]:
            assert hook["entry"].removesuffix(" --force-exclude") in lint, hook["id"]


class TestDockerfile:
    text = (ROOT / "Dockerfile").read_text()

    def test_it_says_that_it_is_untested(self) -> None:
        assert "UNTESTED" in self.text.splitlines()[0]

    def test_it_installs_the_torch_that_make_installs(self) -> None:
        (version,) = re.findall(r"^TORCH := (.+)$", MAKEFILE, flags=re.MULTILINE)
        assert f"ARG TORCH={version}\n" in self.text

    def test_whatever_it_copies_is_there(self) -> None:
        for line in re.findall(r"^COPY (.+)$", self.text, flags=re.MULTILINE):
            for name in line.split()[:-1]:
                assert (ROOT / name).exists(), name

    def test_it_copies_whatever_the_wheel_is_built_from(self) -> None:
        build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
        copied = {name for line in re.findall(r"^COPY (.+)$", self.text, flags=re.MULTILINE) for name in line.split()}
        for source in [*build["packages"], *build["force-include"]]:
            assert any(Path(source).is_relative_to(name) for name in copied), source


TARGETS = re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("command", TARGETS)
def test_every_target_that_contributing_names_exists(command: str) -> None:
    assert re.search(rf"^{command}:", MAKEFILE, flags=re.MULTILINE)
