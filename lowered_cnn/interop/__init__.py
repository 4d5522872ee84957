"""Interoperability with other libraries; each needs its extra."""
