"""The sources of published measurements. A new source is a module with ``SOURCES``, and its name here."""

from __future__ import annotations

from studies.published import (
    ddl_benchmarks,
    diloco,
    gloo_issues,
    gradient_compression,
    gtopkssgd,
    jax_blog,
    mlbench,
    mpi_trees,
    stated_exchanges,
    tc_cluster,
)
from studies.published.plans import Source
from studies.published.rows import PublishedRow

SOURCES: tuple[Source, ...] = (
    *tc_cluster.SOURCES,
    *diloco.SOURCES,
    *mlbench.SOURCES,
    *gloo_issues.SOURCES,
    *mpi_trees.SOURCES,
    *ddl_benchmarks.SOURCES,
    *gtopkssgd.SOURCES,
    *gradient_compression.SOURCES,
    *jax_blog.SOURCES,
)


def source_of(row: PublishedRow) -> Source:
    """Return the source with the longest matching prefix; without a match, :data:`stated_exchanges.SOURCE`."""
    known = [(len(begin), source) for source in SOURCES for begin in source.begins if row.source.startswith(begin)]
    return max(known, key=lambda each: each[0])[1] if known else stated_exchanges.SOURCE
