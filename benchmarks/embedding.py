"""What notebook 03 costs: collecting states, t-SNE by openTSNE and by scikit-learn, and skill videos.

The two t-SNEs get the same features, perplexity (30) and kind of start (PCA), and alternate, so that a busy machine
slows both. Their quality is measured alike: Kullback-Leibler divergence of the exact P and Q of the finished map, and
trustworthiness. Each of the other parts runs in a process of its own, so that its peak memory is its own.

    python benchmarks/embedding.py [--run RUN] [--steps 500] [--sizes 1000 3000] [--rounds 3] [--parts collect videos]

Run it when nothing else runs. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from interp_lib.clusters.states import load_states, sample_rows
from interp_lib.common.tsne import tsne

PERPLEXITY = 30.0


def by_sklearn(features: np.ndarray, threads: int) -> np.ndarray:
    """The competitor, with the same settings; its descent takes as many threads as OpenMP gives it."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads, user_api="openmp"):
        return TSNE(perplexity=PERPLEXITY, init="pca", random_state=0, n_jobs=threads).fit_transform(features)


def joint_probabilities(features: np.ndarray) -> np.ndarray:
    """Exact symmetric P (n, n) of van der Maaten & Hinton (2008): a bandwidth for each point by bisection."""
    squares = np.square(features.astype(np.float64)).sum(1)
    distance = np.maximum(squares[:, None] + squares - 2 * features.astype(np.float64) @ features.T, 0)
    np.fill_diagonal(distance, np.inf)
    low, high = np.full(len(features), 1e-12), np.full(len(features), 1e12)
    for _ in range(100):
        beta = np.sqrt(low * high)
        logits = -beta[:, None] * (distance - distance.min(1, keepdims=True))
        p = np.exp(logits)
        p /= p.sum(1, keepdims=True)
        entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(1)
        wide = entropy > np.log(PERPLEXITY)
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
    return (p + p.T) / (2 * len(p))


def divergence(p: np.ndarray, points: np.ndarray) -> float:
    """KL(P ‖ Q) with the exact Q of a map (n, 2)."""
    squares = np.square(points).sum(1)
    q = 1 / (1 + np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0))
    np.fill_diagonal(q, 0)
    q /= q.sum()
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-300))).sum())


def compare_tsne(states_path: Path, sizes: list[int], rounds: int, threads: int) -> list[dict]:
    """Time and quality of both libraries, a row for each size and library."""
    from sklearn.manifold import trustworthiness

    states = load_states(states_path)
    fit = {
        "openTSNE": lambda x: tsne(x, perplexity=PERPLEXITY, jobs=threads),
        "sklearn": lambda x: by_sklearn(x, threads),
    }
    tsne(states.feature[:200])  # imports and threads start here
    by_sklearn(states.feature[:200], threads)
    rows = []
    for size in sizes:
        features = states.feature[sample_rows(states, size)]
        p = joint_probabilities(features)
        times, points = {name: [] for name in fit}, {}
        for _ in range(rounds):
            for name, run in fit.items():
                start = time.perf_counter()
                points[name] = np.asarray(run(features), dtype=np.float64)
                times[name].append(time.perf_counter() - start)
        for name in fit:
            row = {
                "states": len(features),
                "library": name,
                "seconds": round(statistics.median(times[name]), 1),
                "seconds_least": round(min(times[name]), 1),
                "kl": round(divergence(p, points[name]), 3),
                "trustworthiness": round(float(trustworthiness(features, points[name], n_neighbors=12)), 4),
            }
            rows.append(row)
            print(row, flush=True)
    return rows


def part(name: str, run: str, folder: Path, steps: int) -> dict:
    """One part of notebook 03, in this process: its seconds, those of all its threads, and its peak memory."""
    from interp_lib import load_agent
    from interp_lib.clusters.collect import collect_states
    from interp_lib.clusters.videos import play_for_videos, save_skill_videos
    from interp_lib.common.outputs import Outputs

    path, result = folder / "states.h5", {}
    if name == "tsne":
        features = load_states(path).feature[:5000]
        start, cpu = time.perf_counter(), time.process_time()
        tsne(features)
    else:
        agent = load_agent(run, device="cpu")
        start, cpu = time.perf_counter(), time.process_time()
        if name == "collect":
            states = collect_states(agent, path, steps=steps, progress=False)
            result = {"states": len(states), "file_mb": round(path.stat().st_size / 1e6)}
        else:
            episodes = play_for_videos(agent)
            played = time.perf_counter() - start
            report = save_skill_videos(agent, Outputs(folder, "videos"), [run], episodes)
            result = {
                "seconds_playing": round(played, 1),
                "steps": sum(len(e.actions) for e in episodes),
                "clusters": int((report["frames"] > 0).sum()),
                "frames": int(report["frames"].sum()),
            }
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "peak_rss_gb": round(peak, 2), **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="checkpoints/sppo-fruitbot-s2021")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 3000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="*", default=["collect", "tsne", "videos"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of both t-SNEs (default: all cores)")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(part(args.part, args.run, args.folder, args.steps)))
        return
    threads = args.threads
    summary: dict = {"threads": threads, "load_at_start": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory() as name:
        folder = args.folder or Path(name)
        for each in args.parts:
            command = [sys.executable, __file__, "--part", each, "--folder", str(folder), "--run", args.run]
            done = subprocess.run([*command, "--steps", str(args.steps)], stdout=subprocess.PIPE, text=True, check=True)
            summary[each] = json.loads(done.stdout.splitlines()[-1])
            print(each, summary[each], flush=True)
        if args.sizes and (folder / "states.h5").exists():
            summary["compare_tsne"] = compare_tsne(folder / "states.h5", args.sizes, args.rounds, threads)
    summary["load_at_end"] = round(os.getloadavg()[0], 1)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
