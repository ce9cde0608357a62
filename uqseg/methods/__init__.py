"""Methods: one file each; each turns images into samples."""

from uqseg.methods.method import Method, Noise, Options, build, find, method, names, options

__all__ = ["Method", "Noise", "Options", "build", "find", "method", "names", "options"]
