"""The report (extra `report`): how a training went, and what its network does, as one page with figures."""

from lowered_cnn.report.package import is_installed
from lowered_cnn.report.page import Report, report
from lowered_cnn.report.subject import Subject

__all__ = ["Report", "Subject", "is_installed", "report"]
