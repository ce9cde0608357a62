"""A run: what is asked for, its keys, its work, the store of weights and scores, and the results folder."""
