"""Tests of `dify-kit migrate`."""
