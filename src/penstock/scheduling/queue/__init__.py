"""The queue of one model: limited, ordered, grouped by what may share a batch."""
