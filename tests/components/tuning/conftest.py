"""Workspaces in which everything that a search needs is done."""

from ..training.conftest import diagnoses, packed_folder, stage

__all__ = ["diagnoses", "packed_folder", "stage"]
