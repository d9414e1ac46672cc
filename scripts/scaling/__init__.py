"""Parts of the measurements of how a run scales: what the driver costs, and workers."""
