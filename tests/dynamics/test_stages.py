"""Stages of a run: what they leave open comes from its options."""

import pytest

from mlmm.dynamics.options import ProtocolOptions, RunOptions
from mlmm.dynamics.stages import Equilibrate, Minimise, NVECheck, Produce, standard_stages
from mlmm.errors import ConfigError

OPTIONS = RunOptions(
    timestep="1 fs", temperature="310 K", friction="2 /ps", ensemble="NPT", nonbonded_every=2
)


def test_a_stage_keeps_what_it_says_and_takes_the_rest_from_the_options():
    stage = Produce("1 ps", temperature="280 K").under(OPTIONS)
    assert (stage.temperature, stage.timestep, stage.friction) == (280.0, 0.001, 2.0)
    assert stage.ensemble == "NPT" and stage.step_length == 0.002 and stage.steps == 500
    assert stage.under(RunOptions()) == stage
    assert Equilibrate("1 ps").under(OPTIONS).friction == 10.0
    assert NVECheck("1 ps").under(OPTIONS).ensemble == "NVE"


def test_steps_that_are_too_long_for_a_stage_are_refused_once_they_are_known():
    with pytest.raises(ConfigError, match="stage produce"):
        Produce("1.5 fs").under(OPTIONS)
    with pytest.raises(ConfigError, match="every 16 fs"):
        Produce("1 ps", reciprocal_every=8).under(OPTIONS)
    with pytest.raises(ConfigError, match="every 16 fs"):
        Produce("1 ps", timestep="1 fs", reciprocal_every=16)


def test_standard_stages():
    stages = standard_stages(produce="2 ps", equilibrate="1 ps", equilibrate_friction="5 /ps", nve="1 ps")
    assert stages == [
        Minimise(),
        Equilibrate("1 ps", friction="5 /ps"),
        Produce("2 ps"),
        NVECheck("1 ps"),
    ]
    short = ProtocolOptions(minimise=0, equilibrate="0 ps")
    assert standard_stages(short) == [Produce("100 ps")]
    with pytest.raises(ConfigError, match="at least one stage"):
        standard_stages(short, produce=0)
    with pytest.raises(ConfigError, match="Did you mean 'produce'"):
        standard_stages(short, produces="1 ps")
