"""The log of a run: what goes there, and that nothing stays behind. Names in its report."""

import io
import logging

import pytest
from runs import INTERVALS, chain_hybrid

from mlmm.dynamics.records import log_to, muted
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Minimise, Produce
from mlmm.report import write_report


@pytest.fixture
def terminal():
    """A handler of the package's logger, as the command line sets one up."""
    package, stream = logging.getLogger("mlmm"), io.StringIO()
    before = package.handlers, package.level
    handler = logging.StreamHandler(stream)
    package.handlers = [handler]
    yield handler, stream
    package.handlers = before[0]
    package.setLevel(before[1])


def test_muted_logger_is_restored(terminal):
    handler, stream = terminal
    loud, quiet = logging.getLogger("mlmm.hybrid.rules"), logging.getLogger("mlmm.hybrid.system")
    with pytest.raises(KeyboardInterrupt), muted("mlmm.hybrid.system"):
        quiet.warning("seven times the same")
        loud.warning("once")
        raise KeyboardInterrupt
    assert not handler.filters
    quiet.warning("afterwards")
    assert stream.getvalue().split("\n") == ["once", "afterwards", ""]


def test_the_log_of_a_run_is_closed_with_it(terminal, tmp_path):
    package = logging.getLogger("mlmm")
    package.setLevel(logging.ERROR)
    with pytest.raises(KeyboardInterrupt), log_to(tmp_path / "run.log"):
        logging.getLogger("mlmm.dynamics.runner").info("stage produce")
        raise KeyboardInterrupt
    assert package.handlers == [terminal[0]] and package.level == logging.ERROR
    logging.getLogger("mlmm.dynamics.runner").error("later")
    text = (tmp_path / "run.log").read_text()
    assert "INFO mlmm.dynamics.runner: stage produce" in text and "later" not in text


def test_dollar_signs_in_names_of_stages_are_text(tmp_path):
    """matplotlib takes what stands between two of them as a formula."""
    named = [Minimise(max_iterations=5, name="a$b"), Produce("20 fs", name=r"$\fo{o$")]
    options = {"platform": "Reference", "timestep": "0.5 fs"} | INTERVALS
    run = simulate(chain_hybrid(), tmp_path / "run", named, title="$x_$", **options)
    page = write_report(run.path).read_text()
    assert page.count(r"$\fo{o$") >= 2 and "$x_$" in page
