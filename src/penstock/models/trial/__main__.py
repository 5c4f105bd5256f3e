"""The process that a server starts to try models: `python -m penstock.models.trial OPENER PAGE PARENT`."""

import sys

if len(sys.argv) != 4:
    sys.exit("only `penstock serve` can start this")

from penstock.models.trial.child import main  # it loads ONNX Runtime

main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
