"""Ingestion of footage, its mouth sources and its jump graph."""
