"""One record an algorithm: what it names exists, and all four have one API for run folders."""

import dataclasses
import importlib

import pytest

import interp_lib
from interp_lib.agents.registry import ALGORITHMS


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_record_names_what_there_is(name):
    record = ALGORITHMS[name]
    cls = record.agent_class
    assert (cls.algorithm, cls.__name__) == (name, record.title)
    assert getattr(interp_lib, record.title) is cls
    assert callable(cls.save_run) and callable(cls.load_run)
    assert dataclasses.is_dataclass(record.settings_class)
    module, function = record.train.split(":")
    assert callable(getattr(importlib.import_module(f"interp_lib.agents.{module}"), function))
    env = record.full_name("coinrun" if record.procgen else "Pendulum-v1")
    assert record.full_budget(env) > 0
