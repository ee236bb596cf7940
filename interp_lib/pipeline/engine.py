"""Snakemake, as `interp reproduce` uses it: what would run and why, and running it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..common.errors import InterpError
from ..common.processes import ends_with_us

SNAKEFILE = Path(__file__).parent / "Snakefile"
LOG = ".pipeline/snakemake.log"
# Released weights have a megabyte; a file that was only touched is no reason to redo what depends on it.
_CHECKSUM_BYTES = 50_000_000
_STOPPING_SECONDS = 60.0  # jobs save what they can; after that they are killed


class Pending(NamedTuple):
    """A job that would run: its ``rule``, the ``name`` of its target, and why."""

    rule: str
    name: str
    reason: str


def pending_jobs(figures: Path, *, forced: Sequence[str] = ()) -> list[Pending]:
    """What Snakemake would run in ``figures``, by rule and name.

    Args:
        forced: targets to redo whatever their inputs say.

    Raises:
        InterpError: the DAG can't be built.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.exceptions import print_exception
    from snakemake.settings.types import DAGSettings, ExecutionSettings, OutputSettings, Quietness, ResourceSettings

    announced = _Announced()
    logger = logging.getLogger("snakemake.logging")
    try:
        with _back_where_we_were(), SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL})) as api:
            logger.handlers[:] = [announced]
            workflow = api.workflow(resource_settings=ResourceSettings(cores=1), snakefile=SNAKEFILE, workdir=figures)
            dag = workflow.dag(
                DAGSettings(forcerun=frozenset(forced), force_incomplete=True, max_checksum_file_size=_CHECKSUM_BYTES)
            )
            dag.execute_workflow(executor="dryrun", execution_settings=ExecutionSettings(lock=False))
    except Exception as error:  # Snakemake has some forty kinds
        print_exception(error)
        raise InterpError(f"the pipeline can't be planned: {' '.join(str(error).split())[:300]}") from error
    finally:
        logger.removeHandler(announced)
    return announced.jobs


class _Announced(logging.Handler):
    """Keeps the jobs that a dry run announces, each an event with the job's own attributes (Snakemake's interface for
    plugins that log)."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Pending] = []

    def emit(self, record: Any) -> None:
        from snakemake_interface_logger_plugins.common import LogEvent

        if getattr(record, "event", None) == LogEvent.JOB_INFO and record.rule_name != "all":
            name = next(iter((record.wildcards or {}).values()), "")
            self.jobs.append(Pending(record.rule_name, name, _plain(record.reason)))


def _plain(reason: str) -> str:
    """Snakemake's reason in the user's words: paths as they know them, and only the first few of a long list."""
    text = " ".join(str(reason).split())
    if text.startswith("Missing output files"):
        return "not made yet"  # whatever else may be said of it
    text = re.sub(r"/[^\s,;:]+", lambda match: shown(match.group()), text)
    parts = re.split(r", (?=[\w.]+/)", text)
    return ", ".join(parts[:4]) + (f" and {len(parts) - 4} more" if len(parts) > 4 else "")


def shown(path: Path | str) -> str:
    """A path as seen from here, unless it lies elsewhere."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


@contextlib.contextmanager
def _back_where_we_were() -> Iterator[None]:
    here, log_level, on_term = os.getcwd(), logging.getLogger().level, signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread, where Snakemake couldn't set its own either
            signal.signal(signal.SIGTERM, on_term)
        os.chdir(here)
        logging.getLogger().setLevel(log_level)


def execute(
    figures: Path,
    *,
    jobs: int,
    executor: str | None,
    forced: Sequence[str] = (),
    options: Sequence[str] = (),
    keep_open: Sequence[int] = (),
) -> tuple[int, bool]:
    """Run what is pending, and go on with what doesn't depend on a job that failed.

    Args:
        jobs: local processes at a time, or jobs at a time on a cluster.
        executor: name of a Snakemake executor plugin; None: this machine.
        options: given to Snakemake as they are.
        keep_open: file descriptors Snakemake inherits.

    Returns:
        Snakemake's exit code, and whether it was stopped by Ctrl-C or another signal. Nothing is left running then.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", str(figures)]
    command += ["--keep-going", "--nolock", "--rerun-incomplete", "--workflow-profile", "none"]
    command += ["--max-checksum-file-size", str(_CHECKSUM_BYTES)]
    if executor:
        command += ["--executor", executor, "--jobs", str(jobs), "--latency-wait", "60"]
    else:
        command += ["--cores", str(jobs), "--quiet", "all"]
    if forced:
        command += ["--forcerun", *forced]
    environment = {**os.environ, "INTERP_BARS": "1" if jobs == 1 and not executor else "0"}
    process = subprocess.Popen(
        ends_with_us(*command, *options), env=environment, pass_fds=tuple(keep_open), process_group=0
    )
    try:
        return process.wait(), False
    except KeyboardInterrupt:
        # The jobs are in the group, and each stops as by Ctrl-C, once, however often it was pressed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        try:
            return process.wait(_STOPPING_SECONDS), True
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait(), True
