"""One network imitates another, or two: what distilling, fine-tuning and QAT share."""
