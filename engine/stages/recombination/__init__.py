"""Children out of two parents: crossover, and fine-tuning."""
