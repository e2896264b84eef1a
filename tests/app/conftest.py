"""The app's pages on tiny checkpoints, without a server: AppTest runs app.py and switches to the page."""

import functools
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest, local_script_runner

from shrp import jobs as library
from shrp.analysis.usage import measure_usage
from shrp.checkpoints import checkpoint as checkpoints
from shrp.checkpoints.info import CheckpointInfo
from shrp.data.sources import load_probe
from shrp.data.tasks import TASKS
from shrp.model.config import ShrpConfig
from shrp.pruning.plan import make_plan
from shrp.pruning.prune import prune
from tests.app.helpers import forget
from ui import jobs, loaders
from ui.own import convert

ROOT = Path(__file__).parent.parent.parent
LAYERS = (1, 2)


@pytest.fixture(scope="session", autouse=True)
def _packages_are_read_once():
    """Every new AppTest reads the metadata of every installed package again, which takes as long as most pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            manifest_scanner,
            "scan_component_manifests",
            functools.cache(manifest_scanner.scan_component_manifests),
        )
        yield


@pytest.fixture(scope="session", autouse=True)
def _runs_are_waited_for():
    """AppTest asks every millisecond whether a run has ended, which slows down the page that runs meanwhile."""

    def wait(runner, timeout=3):
        runner._script_thread.join(timeout)
        if not runner.script_stopped():
            runner.request_stop()
            runner.join()
            raise RuntimeError(f"the page was not done after {timeout} s")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_script_runner, "require_widgets_deltas", wait)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_run_fails():
    """Every run of a page, in every test, ends without an exception."""
    whole = AppTest._run

    def run(at, *args, **options):
        found = whole(at, *args, **options)
        assert not found.exception
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AppTest, "_run", run)
        yield


@pytest.fixture
def save_tiny(tmp_path, tiny_routed, tiny_tokenizer):
    """A factory of checkpoint folders: `save_tiny(name, ...)`, with anything of `CheckpointInfo` on top."""

    def save(
        name,
        *,
        routing="sequence",
        top_k=1,
        plan=None,
        history=(),
        task="sst2",
        num_labels=2,
        layers=LAYERS,
        self_path=False,
        **info,
    ):
        how = {"routing": routing, "top_k": top_k, "self_path": self_path}
        model = tiny_routed("bert", layers=layers, num_labels=num_labels, **how)
        config = ShrpConfig(layers, expander_gain=1.0, **how)
        if plan is not None:
            model = prune(model, plan)
        return checkpoints.save(
            model,
            tiny_tokenizer,
            CheckpointInfo(config, TASKS.get(task, task), plan=plan, base_model="a tiny one", **info),
            tmp_path / "checkpoints" / name,
            history=history,
        )

    return save


@pytest.fixture
def tiny_checkpoint(save_tiny):
    """Folder of a routed checkpoint for SST-2: layers 1 and 2 of 3, 4 experts each, an input picks one."""
    return save_tiny("tiny")


@pytest.fixture
def loaded(tiny_checkpoint):
    return checkpoints.load(tiny_checkpoint)


@pytest.fixture
def stats(loaded):
    """Its usage on the probe set."""
    return measure_usage(loaded.model, loaded.tokenizer, load_probe("sst2"))


@pytest.fixture
def tiny_token_checkpoint(save_tiny):
    """The same with every token picking its own expert."""
    return save_tiny("tiny-token", routing="token")


@pytest.fixture
def tiny_static_checkpoint(save_tiny):
    """The same pruned: 1 expert in layer 1, 2 in layer 2."""
    usage = {1: [0.7, 0.1, 0.1, 0.1], 2: [0.5, 0.3, 0.1, 0.1]}
    return save_tiny("tiny-static", plan=make_plan(usage, counts={1: 1, 2: 2}))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty folder for results on disk, and nothing in memory, before the test and after it."""
    monkeypatch.setenv("SHRP_CACHE", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache" / "results"
    forget()


@pytest.fixture
def asleep(monkeypatch, tmp_path):
    """Jobs wait in a folder of the test's own, and no step is measured."""
    monkeypatch.setenv("SHRP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(jobs.SWITCH, "1")
    monkeypatch.setattr(library, "wake", lambda root, **_: None)
    monkeypatch.setattr(convert, "_estimate", lambda *_: 118.0)


@pytest.fixture
def open_page(monkeypatch, tmp_path):
    """`open_page(page, folder, **params)`: the page of that file name, as a link with these params opens it.

    Only the checkpoint of that folder and those beside it are offered; of data the shipped probe set and the hub,
    or the folder `data_dir`.
    """

    def visit(page, folder=None, /, *, data_dir=None, **params):
        monkeypatch.setattr(loaders, "SHIPPED", tmp_path / "none-shipped")
        monkeypatch.delenv("SHRP_DATA_DIR", raising=False)
        if data_dir is not None:
            monkeypatch.setenv("SHRP_DATA_DIR", str(data_dir))
        for name in ("SHRP_CHECKPOINTS", "SHRP_DATA_ROOTS"):
            monkeypatch.delenv(name, raising=False)
        query = {name: str(value) for name, value in params.items()}
        if folder is not None:
            monkeypatch.setenv("SHRP_CHECKPOINTS", str(folder.parent))
            query = {"checkpoint": folder.name} | query
        at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
        if page != "overview":
            at.switch_page(f"pages/{page}.py")  # before any run by its file's name, which is its address too
        for name, value in query.items():
            at.query_params[name] = value
        return at.run()

    return visit
