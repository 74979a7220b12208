"""Runs of the warm loop: the process of each, and reports of those whose process died."""

import os
import socket
import time
from collections.abc import Mapping

import dagster as dg
import psutil
from dagster import DagsterInstance, DagsterRunStatus

from hoi_assets.progress import Log

PID_TAG, HOST_TAG, STARTED_TAG = "hoi/pid", "hoi/host", "hoi/process_started"
DRIVER_TAG = "hoi/driver"  # the run of `regenerate`, or one id per `hoi run`
IN_PROGRESS = (
    DagsterRunStatus.STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.CANCELING,
    DagsterRunStatus.NOT_STARTED,
)
DAEMON_ALIVE_S = 120
CLOCK_TICK_S = 2.0  # the boot time is given in whole seconds


def process_tags() -> dict[str, str]:
    """Tags that let a later start check whether this process is still alive."""
    return {
        PID_TAG: str(os.getpid()),
        HOST_TAG: socket.gethostname(),
        STARTED_TAG: f"{_started_s(psutil.Process()):.2f}",
    }


def report_dead_runs(instance: DagsterInstance, log: Log = print) -> list[str]:
    """Report runs of the warm loop whose process died as failed; returns their ids.

    Dagster's run monitoring cannot see them, and a run that stays STARTED blocks its category.
    """
    dead = []
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=list(IN_PROGRESS))):
        if run.tags.get(HOST_TAG) == socket.gethostname() and not _alive(run.tags):
            message = f"its process {run.tags[PID_TAG]} ended without finishing it"
            instance.report_run_failed(run, message)
            log(f"run {run.run_id} of {run.job_name}: {message}; reported as failed")
            dead.append(run.run_id)
    return dead


def _alive(tags: Mapping[str, str]) -> bool:
    try:
        started = _started_s(psutil.Process(int(tags[PID_TAG])))
        return abs(started - float(tags[STARTED_TAG])) < CLOCK_TICK_S
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return False
    except psutil.AccessDenied:
        return True


def _started_s(process: psutil.Process) -> float:
    """When a process started, in seconds since the machine did: setting the clock changes the time
    of day at which both seem to have started."""
    return process.create_time() - psutil.boot_time()


def daemon_alive(instance: DagsterInstance) -> bool:
    """Whether a daemon that runs backfills reported lately."""
    beat = instance.get_daemon_heartbeats().get("BACKFILL")
    return beat is not None and time.time() - beat.timestamp < DAEMON_ALIVE_S
