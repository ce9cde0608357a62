"""Simulated CT: the anatomy around a lesion and the image of a slice."""
