"""Grids of crossovers and fine-tunings, over one generation or several."""
