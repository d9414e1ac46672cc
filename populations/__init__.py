"""What evolves and how it is kept: networks, genomes, populations, leaderboards."""
