"""Tracking: runs with parameters, metrics, artifacts and the environment they ran in.

A training program logs into a crash-safe spool at the price of microseconds; the spool is shipped
in batches that may be repeated, and the server stores metric points as compressed columns.
"""

from __future__ import annotations

from everloop.track import queries, verbs
from everloop.track.client import RunDraft, RunHandle, RunPorts, resume_run, start_run
from everloop.track.environment import Environment, capture_environment
from everloop.track.model import (
    ArtifactEntry,
    Experiment,
    MetricChunk,
    MetricSummary,
    Run,
    RunStatus,
)
from everloop.track.sync import SyncReport, sync_spool
from everloop.track.watch import Watching

__all__ = [
    "ArtifactEntry",
    "Environment",
    "Experiment",
    "MetricChunk",
    "MetricSummary",
    "Run",
    "RunDraft",
    "RunHandle",
    "RunPorts",
    "RunStatus",
    "SyncReport",
    "Watching",
    "capture_environment",
    "queries",
    "resume_run",
    "start_run",
    "sync_spool",
    "verbs",
]
