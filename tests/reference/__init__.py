"""Slow, obvious numpy versions written from the papers. They never import jaxdal."""
