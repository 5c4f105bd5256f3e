"""The protocols of the server: a package for each, and the code that they share."""

# It settles grpc's experiments, so it must come before any of these modules imports grpc.
import penstock.transport.grpc  # noqa: F401
