"""Runs the child process of `penstock import`."""

from penstock.importing.child import main

main()
