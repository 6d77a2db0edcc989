"""Pipelines: plain functions as steps, cached by everything that their results depend on.

``@step`` and ``@pipeline`` change nothing about a function that is called directly. Run through
``run_pipeline``, each step is looked up by its key, run if need be, and recorded with its lineage.
"""

from __future__ import annotations

from everloop.pipeline import queries, verbs
from everloop.pipeline.codecs import DatasetRef, FileRef, ModelFiles
from everloop.pipeline.context import current_performer, current_run
from everloop.pipeline.engine import PipelineOptions, PipelineResult, run_pipeline
from everloop.pipeline.model import StepRun, StepStatus
from everloop.pipeline.progress import Progress, StepOutcome
from everloop.pipeline.steps import Pipeline, Step, pipeline, step

__all__ = [
    "DatasetRef",
    "FileRef",
    "ModelFiles",
    "Pipeline",
    "PipelineOptions",
    "PipelineResult",
    "Progress",
    "Step",
    "StepOutcome",
    "StepRun",
    "StepStatus",
    "current_performer",
    "current_run",
    "pipeline",
    "queries",
    "run_pipeline",
    "step",
    "verbs",
]
