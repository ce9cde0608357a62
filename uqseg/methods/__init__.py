"""Methods: one file each; each turns images into samples."""

from uqseg.methods.method import Method, Options, build, concrete, find, method, names, options
from uqseg.outside import source_hash

__all__ = ["Method", "Options", "build", "concrete", "find", "method", "names", "options", "source_hash"]
