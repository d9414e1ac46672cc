"""The run: learning, playing, breeding, dispatching, and the command line."""
