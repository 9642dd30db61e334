"""Tests of dify-kit bench."""
