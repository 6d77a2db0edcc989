"""The lineage of a thing as a graph: where it came from, or what came of it, and its evidence."""

from __future__ import annotations

from starlette.responses import Response

from everloop.govern.model import Lineage
from everloop.ui import graph
from everloop.ui.visit import Visit


def show(visit: Visit) -> Response:
    """Show the lineage of the ref in the address, or ask for one."""
    ref = visit.param("ref")
    direction = visit.param("direction") or "up"
    found = visit.query("lineage.show", Lineage, ref=ref, direction=direction) if ref else None
    picture = None
    if found:
        links = [(edge.source, edge.relation, edge.target) for edge in found.edges]
        picture = graph.lay_out([node.ref for node in found.nodes], links)
    return visit.show(
        "lineage.html",
        ref=ref,
        direction=direction,
        lineage=found,
        nodes={node.ref: node for node in found.nodes} if found else {},
        proven=sum(node.verified is True for node in found.nodes) if found else 0,
        picture=picture,
        node_width=graph.NODE_WIDTH,
        node_height=graph.NODE_HEIGHT,
    )
