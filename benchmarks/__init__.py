"""Measurements of jaxdal beside its rivals; see README.md in this folder."""
