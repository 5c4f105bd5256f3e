"""Measures Penstock beside its floors and its peers: `make bench`, or `python -m benchmarks --help`.

Every server runs on the first core and the load on the second, and within a round the servers take turns, so
that a machine whose speed drifts does it to all of them. A figure is the median of the rounds; a ratio is
taken within each round, and then its median.
"""

import os

# Peers and floors load ONNX Runtime, too, and inherit this: no server of a comparison reports to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
