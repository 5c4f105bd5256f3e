"""What is measured of a model at the moment that it is asked for, rather than counted."""

from __future__ import annotations

from penstock.models.model import Model
from penstock.observability.counters import CostLine, Gauges, SequenceCounts
from penstock.scheduling.sequence_batcher import SequenceBatcher


def gauges_of(model: Model) -> Gauges:
    """The backlog, the runs, the breaker, the sequences and the costs of a model."""
    batcher, sequences = model.batcher, model.sequences
    rows, size = batcher.backlog()
    return Gauges(
        rows,
        size,
        batcher.running_batches,
        len(batcher.in_flight.hung_threads()),
        int(batcher.breaker.is_open),
        _sequence_counts(sequences),
        {
            elements: CostLine(cost.base_seconds, cost.row_seconds, cost.spread)
            for elements, cost in batcher.costs.lines().items()
            if cost.is_known
        },
    )


def _sequence_counts(sequences: SequenceBatcher | None) -> SequenceCounts | None:
    if sequences is None:
        return None
    return SequenceCounts(sequences.sequences, sequences.sequences_expired, sequences.sequences_evicted)
