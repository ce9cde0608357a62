"""Wrappers: one file each; each makes another sampler of a trained one."""

from uqseg.wrappers.wrapper import Wrapper, build, find, halves, names, options, wrap, wrapper

__all__ = ["Wrapper", "build", "find", "halves", "names", "options", "wrap", "wrapper"]
