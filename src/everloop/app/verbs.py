"""Imports every package that declares verbs, so that the tables of verbs and records are full."""

from __future__ import annotations

from importlib import import_module

DOMAINS = (
    "data",
    "track",
    "registry",
    "pipeline",
    "gate",
    "release",
    "monitor",
    "loop",
    "edge",
    "fleet",
    "govern",
)
VERB_MODULES = (
    "everloop.app.exporting",
    "everloop.kernel.admin",
    "everloop.kernel.blobs",
    "everloop.kernel.bootstrap",
    "everloop.kernel.tokens",
    *(f"everloop.{domain}.{part}" for domain in DOMAINS for part in ("verbs", "queries")),
    "everloop.monitor.alerts",
    "everloop.release.halting",
    "everloop.release.history",
    "everloop.release.observing",
    "everloop.monitor.erasing",
    "everloop.monitor.feedback",
    "everloop.monitor.refusals",
    "everloop.release.status",
    "everloop.registry.about",
    "everloop.track.files",
    "everloop.track.names",
    "everloop.track.plots",
    "everloop.track.views",
    *(
        f"everloop.{domain}.search"
        for domain in ("data", "track", "registry", "release", "monitor")
    ),
    "everloop.track.experiments",
    "everloop.track.lifecycle",
    "everloop.registry.lifecycle",
    "everloop.registry.folders",
    "everloop.registry.logged_queries",
    "everloop.registry.sealing",
    "everloop.registry.overview",
    "everloop.track.points",
    "everloop.track.history",
    "everloop.track.inputs",
    "everloop.track.bringing",
    "everloop.track.deriving",
    "everloop.track.wholes",
    "everloop.track.traces",
)


def load_verbs() -> None:
    """Import all modules that declare verbs and record kinds; repeating costs nothing."""
    for module in VERB_MODULES:
        import_module(module)
