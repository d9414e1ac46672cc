"""The pipeline on CartPole, from nothing to a child: the canonical run and its short form."""
