"""Packing requests into the tensors of one run, and splitting its outputs into their responses."""
