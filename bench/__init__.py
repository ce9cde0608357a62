"""The harness: train, sample, score and report from one command."""
