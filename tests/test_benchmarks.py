"""The benchmark for GPUs runs where there is none."""

import json
import subprocess
import sys

from conftest import ROOT


def test_the_benchmark_of_a_gpu_measures_every_part_on_a_cpu():
    command = [sys.executable, str(ROOT / "benchmarks/gpu_throughput.py"), "--device", "cpu", "--tiny", "--runs", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    measured = {"environments_alone", "learning_eager", "sac_updates_eager", "protosac_updates_prepared"}
    measured |= {f"collecting_{way}_{n}_groups" for way in ("eager", "prepared") for n in (1, 2, 4)}
    assert all(report[key] > 0 for key in measured | {"runs_1_eager", "runs_1_prepared"})
    assert report["learning_eager_bound"] > 0 and not report["acting_prepared_is_fast"]  # nothing to capture with
