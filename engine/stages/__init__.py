"""The documented pipeline: distill, quantize, cross over, fine-tune, validate; a file per stage."""
