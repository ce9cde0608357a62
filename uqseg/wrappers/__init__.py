"""Wrappers: one file each; each makes another sampler of a trained one."""

from uqseg.wrappers.wrapper import Wrapper, build, find, names, options, wrapper

__all__ = ["Wrapper", "build", "find", "names", "options", "wrapper"]
