"""`python -m penstock.processes`: what a worker's process runs; see `worker`."""

from penstock.processes.worker import main

main()
