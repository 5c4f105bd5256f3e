"""`python -m penstock.processes`: the program of a worker process; see `worker`."""

from penstock.processes.worker import main

main()
