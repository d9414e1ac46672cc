"""Batched environments and the evaluation of genomes."""
