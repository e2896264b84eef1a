"""GLUE from the Hugging Face hub, with a quick and plain answer where there is no network."""

import math
import threading
import time
import urllib.error
import urllib.request

import pandas as pd

from shrp.errors import DataError, first_line

DATA_DIR = "SHRP_DATA_DIR"  # Variable naming a folder of Parquet files to read instead of the hub.
DATASET = "nyu-mll/glue"
TIMEOUT = 3.0  # Seconds that the hub has to answer at all.
RETRY = 60.0  # Seconds after which one that did not is asked again.

_LOADING = threading.Lock()
_silent: dict[str, float] = {}
"""Address -> when it last gave no answer, in seconds of the monotonic clock; a page asks on every run."""


def load_glue_frame(task: str, split: str) -> pd.DataFrame:
    """A split of a GLUE task ("validation" is the matched one for MNLI), from `datasets`' cache or the hub.

    Raises:
        DataError: The hub can't be reached and no copy is kept here.
    """
    import datasets  # Slow to import, and not needed for the other sources.

    hub_split = "validation_matched" if (task, split) == ("mnli", "validation") else split
    with _LOADING:  # As the setting below is one for the whole process.
        was_offline = datasets.config.HF_HUB_OFFLINE
        # Without a network `datasets` retries for half a minute before it looks into its cache. Telling it
        # that it is offline makes it look there at once.
        datasets.config.HF_HUB_OFFLINE = was_offline or not _reachable(datasets.config.HF_ENDPOINT)
        try:
            return datasets.load_dataset(DATASET, task, split=hub_split).to_pandas()
        # A connection that breaks midway raises what the HTTP client of the day has.
        except Exception as error:
            raise DataError(
                f"GLUE's '{task}' can't be read from the hub and no copy is kept here; connect to the "
                f"network, or set {DATA_DIR} to a folder that holds {task}/{split}.parquet. ({first_line(error)})"
            ) from error
        finally:
            datasets.config.HF_HUB_OFFLINE = was_offline


def _reachable(url: str) -> bool:
    """Whether the hub answers in time, or did not a moment ago; any HTTP answer counts, and proxies are respected."""
    if time.monotonic() - _silent.get(url, -math.inf) < RETRY:
        return False
    done = threading.Event()
    answers = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT).close()
            answers.append(True)
        except urllib.error.HTTPError:
            answers.append(True)
        except (OSError, ValueError):
            pass
        finally:
            done.set()

    # In a thread, as the time-out of a socket does not cover the look-up of the name.
    threading.Thread(target=ask, daemon=True).start()
    done.wait(TIMEOUT)
    if not answers:
        _silent[url] = time.monotonic()
    return bool(answers)
