"""Measure SAC and ProtoSAC runs of equal seeds for notebook 04's test of equivalence: writes checkpoints/parity.csv.

Run it after a release; what was measured of the same weights is kept. A run takes seconds, CarRacing half an hour.
"""

import argparse

from interp_lib.envs.names import CONTINUOUS_TASKS
from interp_lib.prototypes.parity import measure_parity

# Humanoid and CarRacing have one seed each and are reported as they are.
TESTED = [task for task in CONTINUOUS_TASKS if task not in ("humanoid", "carracing")]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=TESTED, metavar="TASK", help=f"default: {' '.join(TESTED)}")
    parser.add_argument("--episodes", type=int, default=50, help="of each run (default: 50)")
    parser.add_argument("--folder", default="checkpoints", help="of the runs and the table (default: checkpoints)")
    args = parser.parse_args()
    for line in measure_parity(args.folder, args.tasks, args.episodes):
        print(line, flush=True)
