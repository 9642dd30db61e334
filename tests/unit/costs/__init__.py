"""Tests of `dify-kit costs`."""
