"""Tests that deploy stacks with the real engine and look at them from outside."""
