"""The twins have no Python door: a command's declaration names its twin and the engine finds it."""
