"""The Open Inference Protocol with Triton's extensions: `inference.GRPCInferenceService`.

The protocol: https://github.com/kserve/open-inference-protocol and, for the extensions,
https://github.com/triton-inference-server/server/tree/main/docs/protocol.
"""
