"""What can be had from `shrp` itself."""

import ast
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

import shrp
from shrp.data.sources import load_probe

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", shrp.__all__)
def test_a_public_name_is_what_its_module_defines(name):
    found = getattr(shrp, name)
    assert callable(found)
    assert found.__name__ == name
    assert found is getattr(import_module(found.__module__), name)
    assert found.__module__.startswith("shrp.")


@pytest.mark.parametrize("name", ["unknown", "Load", "__path_of__", ""])
def test_an_unknown_name_is_an_attribute_error_that_says_it(name):
    with pytest.raises(AttributeError, match=f"module 'shrp' has no attribute '{name}'"):
        getattr(shrp, name)
    assert not hasattr(shrp, name)


def test_no_public_name_is_that_of_a_module_which_would_take_its_place_once_imported():
    assert not [name for name in shrp.__all__ if find_spec(f"shrp.{name}")]


def test_completion_and_type_checkers_see_every_public_name():
    assert {*shrp.__all__, "__version__"} <= set(dir(shrp))
    tree = ast.parse(Path(shrp.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    told = {alias.name: node.module for node in block.body for alias in node.names}
    assert told == shrp._HOMES
    assert {"load", "save", "convert_layer", "make_plan", "measure_usage"} <= set(told) == set(shrp.__all__)


def test_the_version_is_that_of_what_is_installed(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: f"{name} as installed")
    assert shrp.__version__ == "shrp as installed"

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert shrp.__version__ == "unknown"


def test_an_install_has_every_file_of_the_package():
    folder = ROOT / "shrp"
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    taken = {path for pattern in setup["package-data"]["shrp"] for path in folder.glob(pattern)}
    files = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files == taken
    # Packages are the folders with an `__init__.py`, so modules in another one would be left behind.
    assert not [path for path in folder.rglob("*.py") if not (path.parent / "__init__.py").is_file()]


def test_importing_the_package_alone_does_not_import_torch():
    code = "import sys, shrp; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_python_of_the_readme_runs(monkeypatch, capsys, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Python") : text.index("## Layout")]
    code = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")  # it names a shipped one, and saves one
    monkeypatch.chdir(tmp_path)
    some = load_probe("sst2").subset(range(0, 480, 10))  # all of them take a minute where others are at work
    monkeypatch.setattr("shrp.data.sources.load_probe", {"sst2": some}.__getitem__)
    exec(code, {})
    said = capsys.readouterr().out
    assert "<Evaluation on 'probe/sst2 (48 of 480)': task 'sst2', accuracy 0." in said
    assert "effective_experts" in said
    assert "tensor(" in said


@pytest.fixture(scope="module")
def imports():
    """Module -> the modules of the project that it imports, in functions and for type checkers too."""
    files = [ROOT / "app.py", *(file for name in BELOW for file in (ROOT / name).rglob("*.py"))]
    parts = [file.relative_to(ROOT).with_suffix("").parts for file in files]
    names = {".".join(part).removesuffix(".__init__"): file for part, file in zip(parts, files)}
    found = {}
    for name, file in names.items():
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        asked = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in (node for node in nodes if isinstance(node, ast.ImportFrom)):
            assert not node.level, f"{name} has a relative import"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            asked |= {part if part in names else node.module for part in parts}
        found[name] = asked & names.keys() - {name}
    return found


BELOW = {
    "pages": {"pages", "ui", "shrp"},
    "ui": {"ui", "shrp"},
    "studies": {"studies", "shrp"},
    "shrp": {"shrp"},
}
"""What the modules of each folder may import."""


def test_no_module_imports_itself_by_way_of_others(imports):
    TopologicalSorter(imports).prepare()  # raises a CycleError that names the modules


def test_pages_import_ui_which_imports_shrp_and_so_do_studies(imports):
    for name, found in imports.items():
        allowed = BELOW.get(name.partition(".")[0], {"ui", "shrp"})
        assert {one.partition(".")[0] for one in found} <= allowed, name
    pages = {name: name.split(".")[1] for name in imports if name.startswith("ui.") and name.count(".") > 1}
    pages = {name: page for name, page in pages.items() if page != "own"}  # which several pages use
    assert not {(a, b) for a, page in pages.items() for b in imports[a] if pages.get(b, page) != page}
