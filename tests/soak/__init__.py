"""Campaigns that are run by hand."""
