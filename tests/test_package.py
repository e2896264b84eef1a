"""What can be had from `shrp` itself."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import shrp


@pytest.mark.parametrize("name", shrp.__all__)
def test_a_public_name_is_what_its_module_defines(name):
    found = getattr(shrp, name)
    assert callable(found)
    assert found.__name__ == name
    assert found is getattr(import_module(found.__module__), name)
    assert found.__module__.startswith("shrp.")


def test_the_public_names_are_those_and_a_star_takes_them_all():
    assert {"load", "save", "convert_layer", "make_plan", "measure_usage"} <= set(shrp.__all__)
    taken = {}
    exec("from shrp import *", taken)
    assert {name for name in taken if not name.startswith("__")} == set(shrp.__all__)


@pytest.mark.parametrize("name", ["unknown", "Load", "__path_of__", ""])
def test_an_unknown_name_is_an_attribute_error_that_says_it(name):
    with pytest.raises(AttributeError, match=f"module 'shrp' has no attribute '{name}'"):
        getattr(shrp, name)
    assert not hasattr(shrp, name)


def test_importing_the_package_alone_does_not_import_torch():
    code = "import sys, shrp; sys.exit('torch' in sys.modules)"
    root = Path(shrp.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0


def test_the_python_of_the_readme_runs(monkeypatch, capsys):
    root = Path(shrp.__file__).parents[1]
    text = (root / "README.md").read_text(encoding="utf-8")
    section = text[text.index("### In Python") : text.index("## Layout")]
    code = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    assert "routes_without" in code
    monkeypatch.chdir(root)  # it names a shipped checkpoint
    exec(code, {})
    said = capsys.readouterr().out
    assert "integrated gradients" in said
    assert "word ablation" in said


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "page", ["app.py", *(f"pages/{path.name}" for path in sorted(ROOT.glob("pages/*.py")))]
)
def test_no_page_has_a_string_that_streamlit_would_draw(page):
    """Streamlit draws what stands alone on a line of a page, a string that documents a constant as well."""
    _, *body = ast.parse((ROOT / page).read_text(encoding="utf-8")).body
    bare = [node for node in body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    assert not [node.lineno for node in bare]
